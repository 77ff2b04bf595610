// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: reduce_sum: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %out = mge.reduce_sum %inp {axes = [0]} : (tensor<2xi1>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reduce_all: inp has dtype float32, which is not supported
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reduce_all %inp {axes = [0]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reduce_mean: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2xi32>) {
  %out = mge.reduce_mean %inp {axes = [0]} : (tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reduce_sum: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reduce_sum %inp {axes = [2]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reduce_sum: axis -1 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reduce_sum %inp {axes = [-1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reduce_mean: axes (1, 1) repeat an axis
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reduce_mean %inp {axes = [1, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reduce_max: axis 0 has size 0 but the result needs at least one element
func.func @f(%inp: tensor<0x3xf32>) {
  %out = mge.reduce_max %inp {axes = [1, 0]} : (tensor<0x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: argmax: axis 1 has size 0 but the result needs at least one element
func.func @f(%inp: tensor<2x0xf32>) {
  %out = mge.argmax %inp {axis = 1} : (tensor<2x0xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: argmin: axis 0 is out of range for rank 0
func.func @f(%inp: tensor<f32>) {
  %out = mge.argmin %inp {axis = 0} : (tensor<f32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: argmin: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %out = mge.argmin %inp {axis = 0} : (tensor<2xi1>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: cumsum: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.cumsum %inp {axis = 2} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: cumsum: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %out = mge.cumsum %inp {axis = 0} : (tensor<2xi1>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: mge.reduce_sum: result type is tensor<7xf32>, expected tensor<2xf32>
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reduce_sum %inp {axes = [1]} : (tensor<2x3xf32>) -> tensor<7xf32>
  func.return
}
