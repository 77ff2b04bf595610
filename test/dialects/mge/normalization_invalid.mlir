// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: batch_norm_train: inp has rank 1 but needs rank 2 or more (N, C, ...)
func.func @f(%inp: tensor<3xf32>) {
  %r:3 = mge.batch_norm_train %inp : (tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// -----

// CHECK: batch_norm_train: weight has shape [4] but needs [3]
func.func @f(%inp: tensor<2x3x4xf32>, %weight: tensor<4xf32>) {
  %r:3 = mge.batch_norm_train %inp, weight = %weight : (tensor<2x3x4xf32>, tensor<4xf32>) -> (tensor<2x3x4xf32>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// -----

// CHECK: batch_norm_train: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2x3xi32>) {
  %r:3 = mge.batch_norm_train %inp : (tensor<2x3xi32>) -> (tensor<2x3xi32>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// -----

// CHECK: batch_norm_train: inp is float32 but weight is float64
func.func @f(%inp: tensor<2x3xf32>, %weight: tensor<3xf64>) {
  %r:3 = mge.batch_norm_train %inp, weight = %weight : (tensor<2x3xf32>, tensor<3xf64>) -> (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// -----

// CHECK: batch_norm_train: eps is -1.0 but may not be negative
func.func @f(%inp: tensor<2x3xf32>) {
  %r:3 = mge.batch_norm_train %inp {eps = -1.0} : (tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// -----

// CHECK: mge.batch_norm_train: result type is
func.func @f(%inp: tensor<2x3xf16>) {
  %r:3 = mge.batch_norm_train %inp : (tensor<2x3xf16>) -> (tensor<2x3xf16>, tensor<3xf16>, tensor<3xf16>)
  func.return
}

// -----

// CHECK: batch_norm_inference: mean has shape [2] but needs [3]
func.func @f(%inp: tensor<2x3xf32>, %weight: tensor<3xf32>, %bias: tensor<3xf32>, %mean: tensor<2xf32>, %variance: tensor<3xf32>) {
  %r = mge.batch_norm_inference %inp, %weight, %bias, %mean, %variance : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<2xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: batch_norm_inference: inp has rank 1 but needs rank 2 or more (N, C, ...)
func.func @f(%inp: tensor<2xf32>, %weight: tensor<3xf32>, %bias: tensor<3xf32>, %mean: tensor<3xf32>, %variance: tensor<3xf32>) {
  %r = mge.batch_norm_inference %inp, %weight, %bias, %mean, %variance : (tensor<2xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: layer_norm: num_axes is 3 but inp has rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.layer_norm %inp {num_axes = 3} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: layer_norm: weight has shape [4] but needs [3, 4]
func.func @f(%inp: tensor<2x3x4xf32>, %weight: tensor<4xf32>) {
  %r = mge.layer_norm %inp, weight = %weight {num_axes = 2} : (tensor<2x3x4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  func.return
}

// -----

// CHECK: rms_norm: weight has shape [3] but needs [4]
func.func @f(%inp: tensor<2x3x4xf32>, %weight: tensor<3xf32>) {
  %r = mge.rms_norm %inp, weight = %weight : (tensor<2x3x4xf32>, tensor<3xf32>) -> tensor<2x3x4xf32>
  func.return
}

// -----

// CHECK: group_norm: inp has 5 channels, which 2 groups do not divide
func.func @f(%inp: tensor<2x5x4xf32>) {
  %r = mge.group_norm %inp {groups = 2} : (tensor<2x5x4xf32>) -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: group_norm: weight has shape [2] but needs [4]
func.func @f(%inp: tensor<2x4x4xf32>, %weight: tensor<2xf32>) {
  %r = mge.group_norm %inp, weight = %weight {groups = 2} : (tensor<2x4x4xf32>, tensor<2xf32>) -> tensor<2x4x4xf32>
  func.return
}
