// RUN: mgec-opt %s | filecheck %s
// RUN: mgec-opt %s --print-op-generic | mgec-opt | filecheck %s

// CHECK-LABEL: @constants
func.func @constants() {
  // CHECK-NEXT: mge.constant {value = dense<[1, -2, 3]> : tensor<3xi32>} : () -> tensor<3xi32>
  %0 = mge.constant {value = dense<[1, -2, 3]> : tensor<3xi32>} : () -> tensor<3xi32>
  // CHECK-NEXT: mge.constant {value = dense<[true, false]> : tensor<2xi1>} : () -> tensor<2xi1>
  %1 = mge.constant {value = dense<[true, false]> : tensor<2xi1>} : () -> tensor<2xi1>
  // CHECK-NEXT: mge.constant {value = dense<-0.000000e+00> : tensor<f32>} : () -> tensor<f32>
  %2 = mge.constant {value = dense<-0.0> : tensor<f32>} : () -> tensor<f32>
  // CHECK-NEXT: mge.constant {value = dense<200> : tensor<ui8>} : () -> tensor<ui8>
  %3 = mge.constant {value = dense<200> : tensor<ui8>} : () -> tensor<ui8>
  // CHECK-NEXT: mge.constant {value = dense<1.500000e+00> : tensor<2x2xbf16>} : () -> tensor<2x2xbf16>
  %4 = mge.constant {value = dense<1.5> : tensor<2x2xbf16>} : () -> tensor<2x2xbf16>
  // CHECK-NEXT: mge.weight {key = "conv1.weight", shape = [64, 3, 7, 7], dtype = f32} : () -> tensor<64x3x7x7xf32>
  %5 = mge.weight {key = "conv1.weight", shape = [64, 3, 7, 7], dtype = f32} : () -> tensor<64x3x7x7xf32>
  func.return
}
