// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: random_bits: state has dtype int32, which is not supported
func.func @f(%state: tensor<4xi32>) {
  %out = mge.random_bits %state {shape = [2]} : (tensor<4xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_uniform: state has dtype int32, which is not supported
func.func @f(%state: tensor<4xi32>) {
  %out = mge.random_uniform %state {shape = [2]} : (tensor<4xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_normal: state has dtype int32, which is not supported
func.func @f(%state: tensor<4xi32>) {
  %out = mge.random_normal %state {shape = [2]} : (tensor<4xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_bits: state has shape (2,) but a state has shape (4,)
func.func @f(%state: tensor<2xui32>) {
  %out = mge.random_bits %state {shape = [2]} : (tensor<2xui32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_bits: shape (-2,) has a negative size
func.func @f(%state: tensor<4xui32>) {
  %out = mge.random_bits %state {shape = [-2]} : (tensor<4xui32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_uniform: shape (-2,) has a negative size
func.func @f(%state: tensor<4xui32>) {
  %out = mge.random_uniform %state {shape = [-2]} : (tensor<4xui32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_normal: shape (-2,) has a negative size
func.func @f(%state: tensor<4xui32>) {
  %out = mge.random_normal %state {shape = [-2]} : (tensor<4xui32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_uniform: the result has dtype int32, which is not supported
func.func @f(%state: tensor<4xui32>) {
  %out = mge.random_uniform %state {shape = [2], dtype = i32} : (tensor<4xui32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: random_normal: the result has dtype int32, which is not supported
func.func @f(%state: tensor<4xui32>) {
  %out = mge.random_normal %state {shape = [2], dtype = i32} : (tensor<4xui32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: dropout: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<4xi32>, %state: tensor<4xui32>) {
  %out, %mask = mge.dropout %inp, %state {drop_prob = 0.1} : (tensor<4xi32>, tensor<4xui32>) -> (tensor<2x3xf32>, tensor<2x3xi1>)
  func.return
}

// -----

// CHECK: dropout: state has dtype int32, which is not supported
func.func @f(%inp: tensor<2x3xf32>, %state: tensor<4xi32>) {
  %out, %mask = mge.dropout %inp, %state {drop_prob = 0.1} : (tensor<2x3xf32>, tensor<4xi32>) -> (tensor<2x3xf32>, tensor<2x3xi1>)
  func.return
}

// -----

// CHECK: dropout: drop_prob is 1.0, but must be in [0, 1)
func.func @f(%inp: tensor<2x3xf32>, %state: tensor<4xui32>) {
  %out, %mask = mge.dropout %inp, %state {drop_prob = 1.0} : (tensor<2x3xf32>, tensor<4xui32>) -> (tensor<2x3xf32>, tensor<2x3xi1>)
  func.return
}

// -----

// CHECK: dropout: drop_prob is nan, but must be in [0, 1)
func.func @f(%inp: tensor<2x3xf32>, %state: tensor<4xui32>) {
  %out, %mask = mge.dropout %inp, %state {drop_prob = "nan"} : (tensor<2x3xf32>, tensor<4xui32>) -> (tensor<2x3xf32>, tensor<2x3xi1>)
  func.return
}

// -----

// CHECK: mge.random_bits: result type is tensor<7xf32>, expected tensor<3xui32>
func.func @f(%state: tensor<4xui32>) {
  %out = mge.random_bits %state {shape = [3]} : (tensor<4xui32>) -> tensor<7xf32>
  func.return
}
