// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: max_pool: inp has rank 2 but needs rank 3, 4 or 5 (N, C, spatial axes)
func.func @f(%inp: tensor<8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [2, 2]} : (tensor<8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: max_pool2d: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2x3x8x8xi1>) {
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xi1>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: max_pool2d: kernel has length 1 but needs length 2
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2], stride = [2, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: max_pool2d: kernel is [2, 0] but may not be below 1
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2, 0], stride = [2, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: max_pool2d: stride is [0, 2] but may not be below 1
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [0, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: max_pool2d: padding is [-1, 0, 0, 0] but may not be below 0
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [2, 2], padding = [-1, 0, 0, 0]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: max_pool2d: padding is [0, 0, 2, 0] but kernel is [2, 2], so some windows see padding only
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [2, 2], padding = [0, 0, 2, 0]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: mge.max_pool: result type is
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// -----

// CHECK: max_pool2d_grad: d_out has shape [2, 3, 8, 8] but pooling gives [2, 3, 4, 4]
func.func @f(%d_out: tensor<2x3x8x8xf32>, %inp: tensor<2x3x8x8xf32>, %pooled: tensor<2x3x4x4xf32>) {
  %r = mge.max_pool_grad %d_out, %inp, %pooled {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// -----

// CHECK: max_pool2d_grad: pooled has shape [2, 3, 8, 8] but pooling gives [2, 3, 4, 4]
func.func @f(%d_out: tensor<2x3x4x4xf32>, %inp: tensor<2x3x8x8xf32>, %pooled: tensor<2x3x8x8xf32>) {
  %r = mge.max_pool_grad %d_out, %inp, %pooled {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x4x4xf32>, tensor<2x3x8x8xf32>, tensor<2x3x8x8xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// -----

// CHECK: max_pool2d_grad: d_out is float64 but inp is float32
func.func @f(%d_out: tensor<2x3x4x4xf64>, %inp: tensor<2x3x8x8xf32>, %pooled: tensor<2x3x4x4xf32>) {
  %r = mge.max_pool_grad %d_out, %inp, %pooled {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x4x4xf64>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// -----

// CHECK: max_pool2d_pick: values is float32[2, 3, 4, 4] but inp is float32[2, 3, 8, 8]
func.func @f(%values: tensor<2x3x4x4xf32>, %inp: tensor<2x3x8x8xf32>, %pooled: tensor<2x3x4x4xf32>) {
  %r = mge.max_pool_pick %values, %inp, %pooled {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x4x4xf32>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: avg_pool2d: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2x3x8x8xi32>) {
  %r = mge.avg_pool %inp {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xi32>) -> tensor<2x3x4x4xi32>
  func.return
}

// -----

// CHECK: avg_pool2d: kernel covers 9 rows but input has 8, padding included
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.avg_pool %inp {kernel = [9, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: avg_pool2d: input has 0 columns
func.func @f(%inp: tensor<1x1x4x0xf32>) {
  %r = mge.avg_pool %inp {kernel = [2, 2], stride = [2, 2]} : (tensor<1x1x4x0xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK: avg_pool2d_grad: d_out has shape [2, 3, 4, 4] but pooling gives [2, 3, 4, 5]
func.func @f(%d_out: tensor<2x3x4x4xf32>) {
  %r = mge.avg_pool_grad %d_out {kernel = [2, 2], stride = [2, 2], input_size = [8, 10]} : (tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// -----

// CHECK: avg_pool2d_grad: input_size has length 1 but needs length 2
func.func @f(%d_out: tensor<2x3x4x4xf32>) {
  %r = mge.avg_pool_grad %d_out {kernel = [2, 2], stride = [2, 2], input_size = [8]} : (tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// -----

// CHECK: avg_pool2d: kernel covers 4 rows but input has 3, padding included
func.func @f(%inp: tensor<2x3x8x8xf32>) {
  %r = mge.avg_pool %inp {kernel = [4, 4], channels_last = true} : (tensor<2x3x8x8xf32>) -> tensor<2x1x5x8xf32>
  func.return
}
