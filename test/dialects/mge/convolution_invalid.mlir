// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: conv2d: input has 3 channels but weight expects 4
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x4x3x3xf32>) {
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xf32>, tensor<16x4x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: output has 6 channels, which 4 groups do not divide
func.func @f(%inp: tensor<8x4x9x9xf32>, %weight: tensor<6x1x3x3xf32>) {
  %out = mge.conv %inp, %weight {groups = 4} : (tensor<8x4x9x9xf32>, tensor<6x1x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv: inp has rank 2 but needs rank 3, 4 or 5 (N, C, spatial axes)
func.func @f(%inp: tensor<32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight : (tensor<32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: weight has rank 5 but needs rank 4 (O, I, kH, kW)
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<2x8x3x3x3xf32>) {
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xf32>, tensor<2x8x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: inp is float32 but weight is float64
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf64>) {
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf64>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<8x3x32x32xi1>, %weight: tensor<16x3x3x3xi1>) {
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xi1>, tensor<16x3x3x3xi1>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: stride is [0, 1] but may not be below 1
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {stride = [0, 1]} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: dilation has length 1 but needs length 2
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {dilation = [1]} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: padding has length 2 but needs length 4
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {padding = [1, 1]} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: padding is [0, -1, 0, 0] but may not be below 0
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {padding = [0, -1, 0, 0]} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: groups is 0 but may not be below 1
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {groups = 0} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: kernel covers 3 columns but input has 2, padding included
func.func @f(%inp: tensor<1x3x4x2xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight : (tensor<1x3x4x2xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: input has 0 rows
func.func @f(%inp: tensor<1x3x0x4xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {padding = [2, 2, 0, 0]} : (tensor<1x3x0x4xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: conv2d: kernel has 0 columns
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x0xf32>) {
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xf32>, tensor<16x3x3x0xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// -----

// CHECK: mge.conv: result type is
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x32x32xf32>
  func.return
}

// -----

// CHECK: conv2d_dgrad: d_out has 15 channels but weight makes 16
func.func @f(%d_out: tensor<8x15x30x30xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv_dgrad %d_out, %weight {input_size = [32, 32]} : (tensor<8x15x30x30xf32>, tensor<16x3x3x3xf32>) -> tensor<8x3x32x32xf32>
  func.return
}

// -----

// CHECK: conv2d_dgrad: d_out has 30 rows but a convolution of 33 rows makes 31
func.func @f(%d_out: tensor<8x16x30x30xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv_dgrad %d_out, %weight {input_size = [33, 32]} : (tensor<8x16x30x30xf32>, tensor<16x3x3x3xf32>) -> tensor<8x3x32x32xf32>
  func.return
}

// -----

// CHECK: conv2d_dgrad: input_size has length 1 but needs length 2
func.func @f(%d_out: tensor<8x16x30x30xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv_dgrad %d_out, %weight {input_size = [32]} : (tensor<8x16x30x30xf32>, tensor<16x3x3x3xf32>) -> tensor<8x3x32x32xf32>
  func.return
}

// -----

// CHECK: conv2d_dgrad: d_out has 16 channels, which 3 groups do not divide
func.func @f(%d_out: tensor<8x16x30x30xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv_dgrad %d_out, %weight {groups = 3, input_size = [32, 32]} : (tensor<8x16x30x30xf32>, tensor<16x3x3x3xf32>) -> tensor<8x3x32x32xf32>
  func.return
}

// -----

// CHECK: conv2d_wgrad: d_out has 8 images but inp has 7
func.func @f(%d_out: tensor<8x16x30x30xf32>, %inp: tensor<7x3x32x32xf32>) {
  %out = mge.conv_wgrad %d_out, %inp {kernel_size = [3, 3]} : (tensor<8x16x30x30xf32>, tensor<7x3x32x32xf32>) -> tensor<16x3x3x3xf32>
  func.return
}

// -----

// CHECK: conv2d_wgrad: d_out has 30 columns but a convolution of 32 columns makes 31
func.func @f(%d_out: tensor<8x16x30x30xf32>, %inp: tensor<8x3x32x32xf32>) {
  %out = mge.conv_wgrad %d_out, %inp {kernel_size = [3, 2]} : (tensor<8x16x30x30xf32>, tensor<8x3x32x32xf32>) -> tensor<16x3x3x3xf32>
  func.return
}

// -----

// CHECK: conv2d_wgrad: inp has 3 channels, which 2 groups do not divide
func.func @f(%d_out: tensor<8x16x30x30xf32>, %inp: tensor<8x3x32x32xf32>) {
  %out = mge.conv_wgrad %d_out, %inp {groups = 2, kernel_size = [3, 3]} : (tensor<8x16x30x30xf32>, tensor<8x3x32x32xf32>) -> tensor<16x3x3x3xf32>
  func.return
}

// -----

// CHECK: conv3d: padding has length 4 but needs length 6
func.func @f(%inp: tensor<8x3x5x5x5xf32>, %weight: tensor<16x3x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {padding = [1, 1, 1, 1]} : (tensor<8x3x5x5x5xf32>, tensor<16x3x3x3x3xf32>) -> tensor<8x16x3x3x3xf32>
  func.return
}

// -----

// CHECK: conv2d: input has 32 channels but weight expects 3
func.func @f(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  %out = mge.conv %inp, %weight {channels_last = true} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x1x30x16xf32>
  func.return
}
