// RUN: mgec-opt %s -p mge-fold-constants,mge-dce | filecheck %s
// RUN: mgec-opt %s -p 'mge-fold-constants{max-bytes=8},mge-dce' | filecheck %s --check-prefix SMALL

// CHECK-LABEL: @chain
// SMALL-LABEL: @chain
func.func @chain() -> (tensor<3xi32>, tensor<f16>) {
  // CHECK-NEXT: mge.constant {value = dense<[-3, -5, -7]> : tensor<3xi32>}
  // SMALL: mge.mul
  // SMALL: mge.neg
  %0 = mge.constant {value = dense<[1, 2, 3]> : tensor<3xi32>} : () -> tensor<3xi32>
  %1 = mge.constant {value = dense<2> : tensor<i32>} : () -> tensor<i32>
  %2 = mge.constant {value = dense<1> : tensor<i32>} : () -> tensor<i32>
  %3 = mge.mul %0, %1 : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %4 = mge.add %3, %2 : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %5 = mge.neg %4 : (tensor<3xi32>) -> tensor<3xi32>
  // Every op rounds: 2049 is not a float16, so adding one to it is as if nothing happened.
  // CHECK-NEXT: mge.constant {value = dense<2.048000e+03> : tensor<f16>}
  // SMALL: mge.constant {value = dense<2.048000e+03> : tensor<f16>}
  %6 = mge.constant {value = dense<2048.0> : tensor<f16>} : () -> tensor<f16>
  %7 = mge.constant {value = dense<1.0> : tensor<f16>} : () -> tensor<f16>
  %8 = mge.add %6, %7 : (tensor<f16>, tensor<f16>) -> tensor<f16>
  %9 = mge.add %8, %7 : (tensor<f16>, tensor<f16>) -> tensor<f16>
  // CHECK-NEXT: func.return
  func.return %5, %9 : tensor<3xi32>, tensor<f16>
}

// CHECK-LABEL: @left_alone
func.func @left_alone(%x: tensor<f32>) -> (tensor<f32>, tensor<f32>, tensor<64x64xf32>, tensor<4096xi32>) {
  %0 = mge.constant {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  // CHECK: mge.add %x
  %1 = mge.add %x, %0 : (tensor<f32>, tensor<f32>) -> tensor<f32>
  // CHECK-NEXT: %[[W:.*]] = mge.weight
  // CHECK-NEXT: mge.neg %[[W]]
  %2 = mge.weight {key = "w", shape = [], dtype = f32} : () -> tensor<f32>
  %3 = mge.neg %2 : (tensor<f32>) -> tensor<f32>
  // CHECK-NEXT: mge.broadcast
  %4 = mge.broadcast %0 {shape = [64, 64]} : (tensor<f32>) -> tensor<64x64xf32>
  // CHECK-NEXT: mge.iota
  %5 = mge.iota {shape = [4096], axis = 0, dtype = i32} : () -> tensor<4096xi32>
  func.return %1, %3, %4, %5 : tensor<f32>, tensor<f32>, tensor<64x64xf32>, tensor<4096xi32>
}
