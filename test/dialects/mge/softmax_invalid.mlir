// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: softmax: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.softmax %inp {axis = 2} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: softmax: axis 1 has size 0 but the result needs at least one element
func.func @f(%inp: tensor<2x0xf32>) {
  %r = mge.softmax %inp {axis = 1} : (tensor<2x0xf32>) -> tensor<2x0xf32>
  func.return
}

// -----

// CHECK: softmax: inp has dtype int32, which is not supported
func.func @f(%inp: tensor<2xi32>) {
  %r = mge.softmax %inp {axis = 0} : (tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

// CHECK: log_softmax: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.log_softmax %inp {axis = 2} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: logsumexp: axes (0, 0) repeat an axis
func.func @f(%inp: tensor<2x3xf32>) {
  %r = mge.logsumexp %inp {axes = [0, 0]} : (tensor<2x3xf32>) -> tensor<3xf32>
  func.return
}

// -----

// CHECK: cross_entropy: labels have shape [3] but logits without axis 1 have [2]
func.func @f(%logits: tensor<2x3xf32>, %labels: tensor<3xi32>) {
  %r = mge.cross_entropy %logits, %labels : (tensor<2x3xf32>, tensor<3xi32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: cross_entropy: labels has dtype float32, which is not supported
func.func @f(%logits: tensor<2x3xf32>, %labels: tensor<2x3xf32>) {
  %r = mge.cross_entropy %logits, %labels : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: cross_entropy: logits has dtype int32, which is not supported
func.func @f(%logits: tensor<2xi32>, %labels: tensor<2xi32>) {
  %r = mge.cross_entropy %logits, %labels : (tensor<2xi32>, tensor<2xi32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: cross_entropy: label_smooth is 1.5 but must be between 0 and 1
func.func @f(%logits: tensor<2x3xf32>, %labels: tensor<2xi32>) {
  %r = mge.cross_entropy %logits, %labels {label_smooth = 1.5} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: cross_entropy: axis 2 is out of range for rank 2
func.func @f(%logits: tensor<2x3xf32>, %labels: tensor<2xi32>) {
  %r = mge.cross_entropy %logits, %labels {axis = 2} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: binary_cross_entropy_with_logits: logits is float32 but labels is float64
func.func @f(%logits: tensor<2x3xf32>, %labels: tensor<2x3xf64>) {
  %r = mge.binary_cross_entropy_with_logits %logits, %labels : (tensor<2x3xf32>, tensor<2x3xf64>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: binary_cross_entropy_with_logits: shapes (2, 3) and (2,) do not broadcast: sizes 3 and 2 differ on axis -1
func.func @f(%logits: tensor<2x3xf32>, %labels: tensor<2xf32>) {
  %r = mge.binary_cross_entropy_with_logits %logits, %labels : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}
