// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @conv2d
func.func @conv2d(%inp: tensor<8x3x32x32xf32>, %weight: tensor<16x3x3x3xf32>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  %out = mge.conv %inp, %weight : (tensor<8x3x32x32xf32>, tensor<16x3x3x3xf32>) -> tensor<8x16x30x30xf32>
  func.return
}

// CHECK-LABEL: @grouped
func.func @grouped(%inp: tensor<2x4x9x8xf16>, %weight: tensor<6x2x3x2xf16>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} {stride = [2, 3], padding = [2, 1, 0, 3], dilation = [2, 1], groups = 2} : (tensor<2x4x9x8xf16>, tensor<6x2x3x2xf16>) -> tensor<2x6x4x4xf16>
  %out = mge.conv %inp, %weight {stride = [2, 3], padding = [2, 1, 0, 3], dilation = [2, 1], groups = 2} : (tensor<2x4x9x8xf16>, tensor<6x2x3x2xf16>) -> tensor<2x6x4x4xf16>
  func.return
}

// CHECK-LABEL: @depthwise_empty_batch
func.func @depthwise_empty_batch(%inp: tensor<0x5x6x6xf64>, %weight: tensor<5x1x3x3xf64>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} {groups = 5} : (tensor<0x5x6x6xf64>, tensor<5x1x3x3xf64>) -> tensor<0x5x4x4xf64>
  %out = mge.conv %inp, %weight {groups = 5} : (tensor<0x5x6x6xf64>, tensor<5x1x3x3xf64>) -> tensor<0x5x4x4xf64>
  func.return
}

// CHECK-LABEL: @conv2d_dgrad
func.func @conv2d_dgrad(%d_out: tensor<8x16x30x30xf32>, %weight: tensor<16x3x3x3xf32>) {
  // CHECK: mge.conv_dgrad %{{.*}}, %{{.*}} {input_size = [32, 32]} : (tensor<8x16x30x30xf32>, tensor<16x3x3x3xf32>) -> tensor<8x3x32x32xf32>
  %out = mge.conv_dgrad %d_out, %weight {input_size = [32, 32]} : (tensor<8x16x30x30xf32>, tensor<16x3x3x3xf32>) -> tensor<8x3x32x32xf32>
  func.return
}

// CHECK-LABEL: @dgrad_grouped
func.func @dgrad_grouped(%d_out: tensor<2x6x4x4xf32>, %weight: tensor<6x2x3x2xf32>) {
  // CHECK: mge.conv_dgrad %{{.*}}, %{{.*}} {stride = [2, 3], padding = [2, 1, 0, 3], dilation = [2, 1], groups = 2, input_size = [9, 8]} : (tensor<2x6x4x4xf32>, tensor<6x2x3x2xf32>) -> tensor<2x4x9x8xf32>
  %out = mge.conv_dgrad %d_out, %weight {stride = [2, 3], padding = [2, 1, 0, 3], dilation = [2, 1], groups = 2, input_size = [9, 8]} : (tensor<2x6x4x4xf32>, tensor<6x2x3x2xf32>) -> tensor<2x4x9x8xf32>
  func.return
}

// CHECK-LABEL: @conv2d_wgrad
func.func @conv2d_wgrad(%d_out: tensor<8x16x30x30xf32>, %inp: tensor<8x3x32x32xf32>) {
  // CHECK: mge.conv_wgrad %{{.*}}, %{{.*}} {kernel_size = [3, 3]} : (tensor<8x16x30x30xf32>, tensor<8x3x32x32xf32>) -> tensor<16x3x3x3xf32>
  %out = mge.conv_wgrad %d_out, %inp {kernel_size = [3, 3]} : (tensor<8x16x30x30xf32>, tensor<8x3x32x32xf32>) -> tensor<16x3x3x3xf32>
  func.return
}

// CHECK-LABEL: @wgrad_grouped
func.func @wgrad_grouped(%d_out: tensor<2x6x4x4xf32>, %inp: tensor<2x4x9x8xf32>) {
  // CHECK: mge.conv_wgrad %{{.*}}, %{{.*}} {stride = [2, 3], padding = [2, 1, 0, 3], dilation = [2, 1], groups = 2, kernel_size = [3, 2]} : (tensor<2x6x4x4xf32>, tensor<2x4x9x8xf32>) -> tensor<6x2x3x2xf32>
  %out = mge.conv_wgrad %d_out, %inp {stride = [2, 3], padding = [2, 1, 0, 3], dilation = [2, 1], groups = 2, kernel_size = [3, 2]} : (tensor<2x6x4x4xf32>, tensor<2x4x9x8xf32>) -> tensor<6x2x3x2xf32>
  func.return
}

// CHECK-LABEL: @one_axis
func.func @one_axis(%inp: tensor<2x3x11xf32>, %weight: tensor<4x3x3xf32>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} {stride = [2], padding = [2, 1], dilation = [3]} : (tensor<2x3x11xf32>, tensor<4x3x3xf32>) -> tensor<2x4x4xf32>
  %out = mge.conv %inp, %weight {stride = [2], padding = [2, 1], dilation = [3]} : (tensor<2x3x11xf32>, tensor<4x3x3xf32>) -> tensor<2x4x4xf32>
  func.return
}

// CHECK-LABEL: @three_axes
func.func @three_axes(%inp: tensor<2x2x4x5x3xf32>, %weight: tensor<3x2x3x2x2xf32>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} {padding = [1, 0, 0, 0, 0, 2]} : (tensor<2x2x4x5x3xf32>, tensor<3x2x3x2x2xf32>) -> tensor<2x3x3x4x4xf32>
  %out = mge.conv %inp, %weight {padding = [1, 0, 0, 0, 0, 2]} : (tensor<2x2x4x5x3xf32>, tensor<3x2x3x2x2xf32>) -> tensor<2x3x3x4x4xf32>
  func.return
}

// CHECK-LABEL: @channels_last
func.func @channels_last(%inp: tensor<8x32x32x3xf32>, %weight: tensor<16x3x3x3xf32>, %d_out: tensor<8x30x30x16xf32>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} {channels_last = true} : (tensor<8x32x32x3xf32>, tensor<16x3x3x3xf32>) -> tensor<8x30x30x16xf32>
  %out = mge.conv %inp, %weight {channels_last = true} : (tensor<8x32x32x3xf32>, tensor<16x3x3x3xf32>) -> tensor<8x30x30x16xf32>
  // CHECK: mge.conv_dgrad {{.*}} {channels_last = true, input_size = [32, 32]} {{.*}} -> tensor<8x32x32x3xf32>
  %d_inp = mge.conv_dgrad %d_out, %weight {channels_last = true, input_size = [32, 32]} : (tensor<8x30x30x16xf32>, tensor<16x3x3x3xf32>) -> tensor<8x32x32x3xf32>
  // CHECK: mge.conv_wgrad {{.*}} {channels_last = true, kernel_size = [3, 3]} {{.*}} -> tensor<16x3x3x3xf32>
  %d_weight = mge.conv_wgrad %d_out, %inp {channels_last = true, kernel_size = [3, 3]} : (tensor<8x30x30x16xf32>, tensor<8x32x32x3xf32>) -> tensor<16x3x3x3xf32>
  func.return
}
