// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @reduce_sum
func.func @reduce_sum(%inp: tensor<2x3x4xf32>) {
  // CHECK: mge.reduce_sum %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  %out = mge.reduce_sum %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  func.return
}

// CHECK-LABEL: @reduce_prod
func.func @reduce_prod(%inp: tensor<2x3x4xf32>) {
  // CHECK: mge.reduce_prod %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  %out = mge.reduce_prod %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  func.return
}

// CHECK-LABEL: @reduce_max
func.func @reduce_max(%inp: tensor<2x3x4xf32>) {
  // CHECK: mge.reduce_max %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  %out = mge.reduce_max %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  func.return
}

// CHECK-LABEL: @reduce_min
func.func @reduce_min(%inp: tensor<2x3x4xf32>) {
  // CHECK: mge.reduce_min %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  %out = mge.reduce_min %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  func.return
}

// CHECK-LABEL: @reduce_mean
func.func @reduce_mean(%inp: tensor<2x3x4xf32>) {
  // CHECK: mge.reduce_mean %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  %out = mge.reduce_mean %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xf32>) -> tensor<1x3x1xf32>
  func.return
}

// CHECK-LABEL: @reduce_all
func.func @reduce_all(%inp: tensor<2x3x4xi1>) {
  // CHECK: mge.reduce_all %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xi1>) -> tensor<1x3x1xi1>
  %out = mge.reduce_all %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xi1>) -> tensor<1x3x1xi1>
  func.return
}

// CHECK-LABEL: @reduce_any
func.func @reduce_any(%inp: tensor<2x3x4xi1>) {
  // CHECK: mge.reduce_any %{{.*}} {axes = [0, 2], keepdims = true} : (tensor<2x3x4xi1>) -> tensor<1x3x1xi1>
  %out = mge.reduce_any %inp {axes = [0, 2], keepdims = true} : (tensor<2x3x4xi1>) -> tensor<1x3x1xi1>
  func.return
}

// CHECK-LABEL: @argmax
func.func @argmax(%inp: tensor<2x3x4xi32>) {
  // CHECK: mge.argmax %{{.*}} {axis = 1} : (tensor<2x3x4xi32>) -> tensor<2x4xi32>
  %out = mge.argmax %inp {axis = 1} : (tensor<2x3x4xi32>) -> tensor<2x4xi32>
  func.return
}

// CHECK-LABEL: @argmin
func.func @argmin(%inp: tensor<2x3x4xi64>) {
  // CHECK: mge.argmin %{{.*}} {axis = 1, keepdims = true} : (tensor<2x3x4xi64>) -> tensor<2x1x4xi32>
  %out = mge.argmin %inp {axis = 1, keepdims = true} : (tensor<2x3x4xi64>) -> tensor<2x1x4xi32>
  func.return
}

// CHECK-LABEL: @cumsum
func.func @cumsum(%inp: tensor<2x3x4xi8>) {
  // CHECK: mge.cumsum %{{.*}} {axis = 0, exclusive = true} : (tensor<2x3x4xi8>) -> tensor<2x3x4xi8>
  %out = mge.cumsum %inp {axis = 0, exclusive = true} : (tensor<2x3x4xi8>) -> tensor<2x3x4xi8>
  func.return
}
