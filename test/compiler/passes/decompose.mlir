// RUN: mgec-opt %s -p mge-decompose --print-debuginfo | filecheck %s
// RUN: mgec-opt %s -p 'mge-decompose{keep=reduce_mean}' | filecheck %s --check-prefix KEEP
// RUN: mgec-opt %s -p 'mge-decompose{keep=reduce_mean keep-dtypes=float64}' --print-debuginfo | filecheck %s
// RUN: mgec-opt %s -p 'mge-decompose{keep=reduce_mean keep-dtypes=float32,float64}' | filecheck %s --check-prefix KEEP

// Ops made from a composite have its location; a composite inside it is decomposed too.
// CHECK-LABEL: @mean
// KEEP-LABEL: @mean
func.func @mean(%x: tensor<2x4xf32>) -> (tensor<2xf32>, tensor<2x8xf32>) {
  // CHECK-NEXT: %[[S:.*]] = mge.reduce_sum %x {axes = [1]} : (tensor<2x4xf32>) -> tensor<2xf32> loc("net.py":7:2)
  // CHECK-NEXT: %[[C:.*]] = mge.constant {value = dense<4.000000e+00> : tensor<f32>} : () -> tensor<f32> loc("net.py":7:2)
  // CHECK-NEXT: mge.div %[[S]], %[[C]] : (tensor<2xf32>, tensor<f32>) -> tensor<2xf32> loc("net.py":7:2)
  // KEEP-NEXT: mge.reduce_mean
  %0 = mge.reduce_mean %x {axes = [1]} : (tensor<2x4xf32>) -> tensor<2xf32> loc("net.py":7:2)
  // CHECK-NOT: mge.tile
  // KEEP-NOT: mge.tile
  %1 = mge.tile %x {reps = [1, 2]} : (tensor<2x4xf32>) -> tensor<2x8xf32> loc("net.py":8:2)
  func.return %0, %1 : tensor<2xf32>, tensor<2x8xf32>
}
