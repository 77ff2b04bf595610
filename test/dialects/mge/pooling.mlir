// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @max_pool2d
func.func @max_pool2d(%inp: tensor<2x3x8x8xf32>) {
  // CHECK: mge.max_pool %{{.*}} {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  %r = mge.max_pool %inp {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// CHECK-LABEL: @integers
func.func @integers(%inp: tensor<2x1x9x7xi8>) {
  // CHECK: mge.max_pool %{{.*}} {kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1]} : (tensor<2x1x9x7xi8>) -> tensor<2x1x9x3xi8>
  %r = mge.max_pool %inp {kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1]} : (tensor<2x1x9x7xi8>) -> tensor<2x1x9x3xi8>
  func.return
}

// CHECK-LABEL: @max_pool2d_grad
func.func @max_pool2d_grad(%d_out: tensor<2x3x4x4xf32>, %inp: tensor<2x3x8x8xf32>, %pooled: tensor<2x3x4x4xf32>) {
  // CHECK: mge.max_pool_grad %{{.*}}, %{{.*}}, %{{.*}} {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x4x4xf32>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  %r = mge.max_pool_grad %d_out, %inp, %pooled {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x4x4xf32>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// CHECK-LABEL: @max_pool2d_pick
func.func @max_pool2d_pick(%values: tensor<2x3x8x8xf32>, %inp: tensor<2x3x8x8xf32>, %pooled: tensor<2x3x4x4xf32>) {
  // CHECK: mge.max_pool_pick %{{.*}}, %{{.*}}, %{{.*}} {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x4x4xf32>
  %r = mge.max_pool_pick %values, %inp, %pooled {kernel = [2, 2], stride = [2, 2]} : (tensor<2x3x8x8xf32>, tensor<2x3x8x8xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// CHECK-LABEL: @avg_pool2d
func.func @avg_pool2d(%inp: tensor<2x1x9x7xbf16>) {
  // CHECK: mge.avg_pool %{{.*}} {kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1]} : (tensor<2x1x9x7xbf16>) -> tensor<2x1x9x3xbf16>
  %r = mge.avg_pool %inp {kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1]} : (tensor<2x1x9x7xbf16>) -> tensor<2x1x9x3xbf16>
  func.return
}

// CHECK-LABEL: @counting
func.func @counting(%inp: tensor<2x1x9x7xf32>) {
  // CHECK: mge.avg_pool %{{.*}} {kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1], count_include_pad = true} : (tensor<2x1x9x7xf32>) -> tensor<2x1x9x3xf32>
  %r = mge.avg_pool %inp {kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1], count_include_pad = true} : (tensor<2x1x9x7xf32>) -> tensor<2x1x9x3xf32>
  func.return
}

// CHECK-LABEL: @avg_pool2d_grad
func.func @avg_pool2d_grad(%d_out: tensor<2x3x4x4xf32>) {
  // CHECK: mge.avg_pool_grad %{{.*}} {kernel = [2, 2], stride = [2, 2], input_size = [8, 8]} : (tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  %r = mge.avg_pool_grad %d_out {kernel = [2, 2], stride = [2, 2], input_size = [8, 8]} : (tensor<2x3x4x4xf32>) -> tensor<2x3x8x8xf32>
  func.return
}

// CHECK-LABEL: @one_axis
func.func @one_axis(%inp: tensor<2x3x11xf32>) {
  // CHECK: mge.max_pool %{{.*}} {kernel = [3], padding = [1, 2]} : (tensor<2x3x11xf32>) -> tensor<2x3x12xf32>
  %r = mge.max_pool %inp {kernel = [3], padding = [1, 2]} : (tensor<2x3x11xf32>) -> tensor<2x3x12xf32>
  func.return
}

// CHECK-LABEL: @three_axes_channels_last
func.func @three_axes_channels_last(%inp: tensor<1x4x6x8x5xf32>) {
  // CHECK: mge.avg_pool %{{.*}} {kernel = [2, 2, 2], stride = [2, 2, 2], channels_last = true} : (tensor<1x4x6x8x5xf32>) -> tensor<1x2x3x4x5xf32>
  %r = mge.avg_pool %inp {kernel = [2, 2, 2], stride = [2, 2, 2], channels_last = true} : (tensor<1x4x6x8x5xf32>) -> tensor<1x2x3x4x5xf32>
  func.return
}
