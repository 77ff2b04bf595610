// RUN: mgec-opt %s -p mge-cse | filecheck %s

// CHECK-LABEL: @twice
func.func @twice(%x: tensor<3xf32>, %y: tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>) {
  // CHECK-NEXT: %[[E:.*]] = mge.exp %x
  %0 = mge.exp %x : (tensor<3xf32>) -> tensor<3xf32>
  %1 = mge.exp %x : (tensor<3xf32>) -> tensor<3xf32>
  // CHECK-NEXT: %[[A:.*]] = mge.add %[[E]], %y
  %2 = mge.add %0, %y : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  %3 = mge.add %1, %y : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  // CHECK-NEXT: func.return %[[A]], %[[A]]
  func.return %2, %3 : tensor<3xf32>, tensor<3xf32>
}

// Same op, another attribute or another result type; 0.0 and -0.0 are not the same either.
// CHECK-LABEL: @different
func.func @different(%x: tensor<3x3xf32>) -> (tensor<3xf32>, tensor<3xf32>, tensor<f32>, tensor<f32>) {
  // CHECK-COUNT-2: mge.reduce_sum
  %0 = mge.reduce_sum %x {axes = [0]} : (tensor<3x3xf32>) -> tensor<3xf32>
  %1 = mge.reduce_sum %x {axes = [1]} : (tensor<3x3xf32>) -> tensor<3xf32>
  // CHECK-COUNT-2: mge.constant
  %2 = mge.constant {value = dense<0.0> : tensor<f32>} : () -> tensor<f32>
  %3 = mge.constant {value = dense<-0.0> : tensor<f32>} : () -> tensor<f32>
  func.return %0, %1, %2, %3 : tensor<3xf32>, tensor<3xf32>, tensor<f32>, tensor<f32>
}

// Inside a kernel as outside; never from one into the other; other dialects are left alone.
// CHECK-LABEL: @kernel
func.func @kernel(%x: tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>) {
  // CHECK: mge.neg %x
  %0 = mge.neg %x : (tensor<3xf32>) -> tensor<3xf32>
  // CHECK: %[[N:.*]] = mge.neg %a
  // CHECK-NEXT: mge.mul %[[N]], %[[N]]
  %1 = mge.kernel "k" (%a = %x : tensor<3xf32>) -> tensor<3xf32> {
    %2 = mge.neg %a : (tensor<3xf32>) -> tensor<3xf32>
    %3 = mge.neg %a : (tensor<3xf32>) -> tensor<3xf32>
    %4 = mge.mul %2, %3 : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
    mge.yield %4 : tensor<3xf32>
  }
  // CHECK-COUNT-2: "test.op"
  %5 = "test.op"() : () -> tensor<3xf32>
  %6 = "test.op"() : () -> tensor<3xf32>
  func.return %0, %1 : tensor<3xf32>, tensor<3xf32>
}
