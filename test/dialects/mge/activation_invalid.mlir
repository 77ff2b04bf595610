// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: silu: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2xi32>) {
  %r = mge.silu %inp : (tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

// CHECK: gelu: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %r = mge.gelu %inp : (tensor<2xi1>) -> tensor<2xi1>
  func.return
}

// -----

// CHECK: leaky_relu: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2xi32>) {
  %r = mge.leaky_relu %inp : (tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

// CHECK: elu: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2xi32>) {
  %r = mge.elu %inp : (tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

// CHECK: clip: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %r = mge.clip %inp {lower = 0.0} : (tensor<2xi1>) -> tensor<2xi1>
  func.return
}

// -----

// CHECK: prelu: operands have dtypes float32 and float64
func.func @f(%inp: tensor<2x3xf32>, %weight: tensor<3xf64>) {
  %r = mge.prelu %inp, %weight : (tensor<2x3xf32>, tensor<3xf64>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: logaddexp: shapes (2, 3) and (2,) do not broadcast: sizes 3 and 2 differ on axis -1
func.func @f(%lhs: tensor<2x3xf32>, %rhs: tensor<2xf32>) {
  %r = mge.logaddexp %lhs, %rhs : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: clip: neither lower nor upper is given
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.clip %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: clip: lower is 1.0 but upper is 0.0
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.clip %inp {lower = 1.0, upper = 0.0} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: mge.relu6: result type is
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.relu6 %inp : (tensor<2x3xf32>) -> tensor<3x2xf32>
  func.return
}
