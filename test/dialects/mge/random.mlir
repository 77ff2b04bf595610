// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @random_bits
func.func @random_bits(%state: tensor<4xui32>) {
  // CHECK: mge.random_bits %{{.*}} {shape = [2, 3]} : (tensor<4xui32>) -> tensor<2x3xui32>
  %out = mge.random_bits %state {shape = [2, 3]} : (tensor<4xui32>) -> tensor<2x3xui32>
  func.return
}

// CHECK-LABEL: @random_uniform
func.func @random_uniform(%state: tensor<4xui32>) {
  // CHECK: mge.random_uniform %{{.*}} {shape = [2, 3]} : (tensor<4xui32>) -> tensor<2x3xf32>
  %out = mge.random_uniform %state {shape = [2, 3]} : (tensor<4xui32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @random_normal
func.func @random_normal(%state: tensor<4xui32>) {
  // CHECK: mge.random_normal %{{.*}} {shape = [], dtype = f16} : (tensor<4xui32>) -> tensor<f16>
  %out = mge.random_normal %state {shape = [], dtype = f16} : (tensor<4xui32>) -> tensor<f16>
  func.return
}

// CHECK-LABEL: @dropout
func.func @dropout(%inp: tensor<2xf32>, %state: tensor<4xui32>) {
  // CHECK: mge.dropout %{{.*}}, %{{.*}} {drop_prob = 0.1} : (tensor<2xf32>, tensor<4xui32>) -> (tensor<2xf32>, tensor<2xi1>)
  %out, %mask = mge.dropout %inp, %state {drop_prob = 0.1} : (tensor<2xf32>, tensor<4xui32>) -> (tensor<2xf32>, tensor<2xi1>)
  func.return
}
