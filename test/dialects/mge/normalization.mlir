// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @batch_norm_train
func.func @batch_norm_train(%inp: tensor<2x6x4x4xf32>, %weight: tensor<6xf32>, %bias: tensor<6xf32>) {
  // CHECK: mge.batch_norm_train %{{.*}}, weight = %{{.*}}, bias = %{{.*}} : (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>) -> (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>)
  %r:3 = mge.batch_norm_train %inp, weight = %weight, bias = %bias : (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>) -> (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>)
  func.return
}

// CHECK-LABEL: @no_affine
func.func @no_affine(%inp: tensor<2x6x4x4xf32>) {
  // CHECK: mge.batch_norm_train %{{.*}} {eps = 0.125} : (tensor<2x6x4x4xf32>) -> (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>)
  %r:3 = mge.batch_norm_train %inp {eps = 0.125} : (tensor<2x6x4x4xf32>) -> (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>)
  func.return
}

// CHECK-LABEL: @mixed
func.func @mixed(%inp: tensor<2x3xf16>, %weight: tensor<3xf32>) {
  // CHECK: mge.batch_norm_train %{{.*}}, weight = %{{.*}} : (tensor<2x3xf16>, tensor<3xf32>) -> (tensor<2x3xf16>, tensor<3xf32>, tensor<3xf32>)
  %r:3 = mge.batch_norm_train %inp, weight = %weight : (tensor<2x3xf16>, tensor<3xf32>) -> (tensor<2x3xf16>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// CHECK-LABEL: @batch_norm_inference
func.func @batch_norm_inference(%inp: tensor<2x6x4x4xf32>, %weight: tensor<6xf32>, %bias: tensor<6xf32>, %mean: tensor<6xf32>, %variance: tensor<6xf32>) {
  // CHECK: mge.batch_norm_inference %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x6x4x4xf32>
  %r = mge.batch_norm_inference %inp, %weight, %bias, %mean, %variance : (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x6x4x4xf32>
  func.return
}

// CHECK-LABEL: @layer_norm
func.func @layer_norm(%inp: tensor<2x3x8xf32>, %weight: tensor<8xf32>, %bias: tensor<8xf32>) {
  // CHECK: mge.layer_norm %{{.*}}, weight = %{{.*}}, bias = %{{.*}} : (tensor<2x3x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %r = mge.layer_norm %inp, weight = %weight, bias = %bias : (tensor<2x3x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  func.return
}

// CHECK-LABEL: @bias_only
func.func @bias_only(%inp: tensor<2x3x8xf32>, %bias: tensor<3x8xf32>) {
  // CHECK: mge.layer_norm %{{.*}}, bias = %{{.*}} {num_axes = 2} : (tensor<2x3x8xf32>, tensor<3x8xf32>) -> tensor<2x3x8xf32>
  %r = mge.layer_norm %inp, bias = %bias {num_axes = 2} : (tensor<2x3x8xf32>, tensor<3x8xf32>) -> tensor<2x3x8xf32>
  func.return
}

// CHECK-LABEL: @rms_norm
func.func @rms_norm(%inp: tensor<2x8xbf16>, %weight: tensor<8xbf16>) {
  // CHECK: mge.rms_norm %{{.*}}, weight = %{{.*}} : (tensor<2x8xbf16>, tensor<8xbf16>) -> tensor<2x8xbf16>
  %r = mge.rms_norm %inp, weight = %weight : (tensor<2x8xbf16>, tensor<8xbf16>) -> tensor<2x8xbf16>
  func.return
}

// CHECK-LABEL: @rms_plain
func.func @rms_plain(%inp: tensor<2x8xf32>) {
  // CHECK: mge.rms_norm %{{.*}} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %r = mge.rms_norm %inp : (tensor<2x8xf32>) -> tensor<2x8xf32>
  func.return
}

// CHECK-LABEL: @group_norm
func.func @group_norm(%inp: tensor<2x6x4x4xf32>, %weight: tensor<6xf32>, %bias: tensor<6xf32>) {
  // CHECK: mge.group_norm %{{.*}}, weight = %{{.*}}, bias = %{{.*}} {groups = 3} : (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x6x4x4xf32>
  %r = mge.group_norm %inp, weight = %weight, bias = %bias {groups = 3} : (tensor<2x6x4x4xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x6x4x4xf32>
  func.return
}

// CHECK-LABEL: @instance
func.func @instance(%inp: tensor<2x6x4x4xf32>) {
  // CHECK: mge.group_norm %{{.*}} {groups = 6} : (tensor<2x6x4x4xf32>) -> tensor<2x6x4x4xf32>
  %r = mge.group_norm %inp {groups = 6} : (tensor<2x6x4x4xf32>) -> tensor<2x6x4x4xf32>
  func.return
}
