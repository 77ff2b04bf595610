// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @silu
func.func @silu(%inp: tensor<2x3xbf16>) {
  // CHECK: mge.silu %{{.*}} : (tensor<2x3xbf16>) -> tensor<2x3xbf16>
  %r = mge.silu %inp : (tensor<2x3xbf16>) -> tensor<2x3xbf16>
  func.return
}

// CHECK-LABEL: @relu6
func.func @relu6(%inp: tensor<2x3xf32>) {
  // CHECK: mge.relu6 %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.relu6 %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @hard_sigmoid
func.func @hard_sigmoid(%inp: tensor<2x3xf32>) {
  // CHECK: mge.hard_sigmoid %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.hard_sigmoid %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @hard_swish
func.func @hard_swish(%inp: tensor<2x3xf32>) {
  // CHECK: mge.hard_swish %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.hard_swish %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @softplus
func.func @softplus(%inp: tensor<2x3xf32>) {
  // CHECK: mge.softplus %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.softplus %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @log_sigmoid
func.func @log_sigmoid(%inp: tensor<2x3xf32>) {
  // CHECK: mge.log_sigmoid %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.log_sigmoid %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @square
func.func @square(%inp: tensor<2x3xf32>) {
  // CHECK: mge.square %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.square %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @reciprocal
func.func @reciprocal(%inp: tensor<2x3xf32>) {
  // CHECK: mge.reciprocal %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.reciprocal %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @gelu
func.func @gelu(%inp: tensor<2x3xf32>) {
  // CHECK: mge.gelu %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.gelu %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @leaky_relu
func.func @leaky_relu(%inp: tensor<2x3xf32>) {
  // CHECK: mge.leaky_relu %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.leaky_relu %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @elu
func.func @elu(%inp: tensor<2x3xf32>) {
  // CHECK: mge.elu %{{.*}} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.elu %inp : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @logaddexp
func.func @logaddexp(%lhs: tensor<2x3xf32>, %rhs: tensor<3xf32>) {
  // CHECK: mge.logaddexp %{{.*}}, %{{.*}} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %r = mge.logaddexp %lhs, %rhs : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @prelu
func.func @prelu(%inp: tensor<2x3x4x4xf32>, %weight: tensor<3x1x1xf32>) {
  // CHECK: mge.prelu %{{.*}}, %{{.*}} : (tensor<2x3x4x4xf32>, tensor<3x1x1xf32>) -> tensor<2x3x4x4xf32>
  %r = mge.prelu %inp, %weight : (tensor<2x3x4x4xf32>, tensor<3x1x1xf32>) -> tensor<2x3x4x4xf32>
  func.return
}

// CHECK-LABEL: @gelu_tanh
func.func @gelu_tanh(%inp: tensor<2x3xf32>) {
  // CHECK: mge.gelu %{{.*}} {approximate = true} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.gelu %inp {approximate = true} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @leaky_relu_slope
func.func @leaky_relu_slope(%inp: tensor<2x3xf32>) {
  // CHECK: mge.leaky_relu %{{.*}} {negative_slope = 0.125} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.leaky_relu %inp {negative_slope = 0.125} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @elu_alpha
func.func @elu_alpha(%inp: tensor<2x3xf32>) {
  // CHECK: mge.elu %{{.*}} {alpha = 0.5} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.elu %inp {alpha = 0.5} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @clip
func.func @clip(%inp: tensor<2x3xf32>) {
  // CHECK: mge.clip %{{.*}} {lower = 0.0, upper = 6.0} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %r = mge.clip %inp {lower = 0.0, upper = 6.0} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @clip_above
func.func @clip_above(%inp: tensor<4xi8>) {
  // CHECK: mge.clip %{{.*}} {upper = 1.0} : (tensor<4xi8>) -> tensor<4xi8>
  %r = mge.clip %inp {upper = 1.0} : (tensor<4xi8>) -> tensor<4xi8>
  func.return
}

// CHECK-LABEL: @square_integers
func.func @square_integers(%inp: tensor<4xui8>) {
  // CHECK: mge.square %{{.*}} : (tensor<4xui8>) -> tensor<4xui8>
  %r = mge.square %inp : (tensor<4xui8>) -> tensor<4xui8>
  func.return
}
