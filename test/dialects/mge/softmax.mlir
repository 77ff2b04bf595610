// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @softmax
func.func @softmax(%inp: tensor<2x3xf32>) {
  // CHECK: mge.softmax %{{.*}} {axis = 1} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.softmax %inp {axis = 1} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @log_softmax
func.func @log_softmax(%inp: tensor<2x3xbf16>) {
  // CHECK: mge.log_softmax %{{.*}} {axis = 0} : (tensor<2x3xbf16>) -> tensor<2x3xbf16>
  %r = mge.log_softmax %inp {axis = 0} : (tensor<2x3xbf16>) -> tensor<2x3xbf16>
  func.return
}

// CHECK-LABEL: @logsumexp
func.func @logsumexp(%inp: tensor<2x3x4xf32>) {
  // CHECK: mge.logsumexp %{{.*}} {axes = [0, 2]} : (tensor<2x3x4xf32>) -> tensor<3xf32>
  %r = mge.logsumexp %inp {axes = [0, 2]} : (tensor<2x3x4xf32>) -> tensor<3xf32>
  func.return
}

// CHECK-LABEL: @keepdims
func.func @keepdims(%inp: tensor<2x3xf32>) {
  // CHECK: mge.logsumexp %{{.*}} {axes = [1], keepdims = true} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  %r = mge.logsumexp %inp {axes = [1], keepdims = true} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  func.return
}

// CHECK-LABEL: @cross_entropy
func.func @cross_entropy(%logits: tensor<2x3xf32>, %labels: tensor<2xi32>) {
  // CHECK: mge.cross_entropy %{{.*}}, %{{.*}} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2xf32>
  %r = mge.cross_entropy %logits, %labels : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2xf32>
  func.return
}

// CHECK-LABEL: @smoothed
func.func @smoothed(%logits: tensor<4x2x3xf16>, %labels: tensor<4x2xi64>) {
  // CHECK: mge.cross_entropy %{{.*}}, %{{.*}} {axis = 2, label_smooth = 0.125} : (tensor<4x2x3xf16>, tensor<4x2xi64>) -> tensor<4x2xf16>
  %r = mge.cross_entropy %logits, %labels {axis = 2, label_smooth = 0.125} : (tensor<4x2x3xf16>, tensor<4x2xi64>) -> tensor<4x2xf16>
  func.return
}

// CHECK-LABEL: @binary_cross_entropy_with_logits
func.func @binary_cross_entropy_with_logits(%logits: tensor<2x3xf32>, %labels: tensor<3xf32>) {
  // CHECK: mge.binary_cross_entropy_with_logits %{{.*}}, %{{.*}} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %r = mge.binary_cross_entropy_with_logits %logits, %labels : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  func.return
}
