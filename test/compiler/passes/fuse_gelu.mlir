// RUN: mgec-opt %s -p mge-fuse-gelu,mge-dce --split-input-file | filecheck %s

// As PyTorch writes it into an ONNX file.
// CHECK-LABEL: @divided
func.func @divided(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  // CHECK-NEXT: %[[Y:.*]] = mge.gelu %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  // CHECK-NEXT: func.return %[[Y]]
  %sqrt2 = mge.constant {value = dense<1.41421354> : tensor<f32>} : () -> tensor<f32>
  %one = mge.constant {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = mge.constant {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.div %x, %sqrt2 : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %1 = mge.erf %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = mge.add %1, %one : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %3 = mge.mul %x, %2 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %4 = mge.mul %3, %half : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// In another order: (x / 2) * (erf(x * 0.7071) + 1).
// CHECK-LABEL: @multiplied
func.func @multiplied(%x: tensor<8xf64>) -> tensor<8xf64> {
  // CHECK-NEXT: mge.gelu %x
  %c = mge.constant {value = dense<0.7071> : tensor<f64>} : () -> tensor<f64>
  %one = mge.constant {value = dense<1.0> : tensor<f64>} : () -> tensor<f64>
  %two = mge.constant {value = dense<2.0> : tensor<f64>} : () -> tensor<f64>
  %0 = mge.mul %x, %c : (tensor<8xf64>, tensor<f64>) -> tensor<8xf64>
  %1 = mge.erf %0 : (tensor<8xf64>) -> tensor<8xf64>
  %2 = mge.add %1, %one : (tensor<8xf64>, tensor<f64>) -> tensor<8xf64>
  %3 = mge.div %x, %two : (tensor<8xf64>, tensor<f64>) -> tensor<8xf64>
  %4 = mge.mul %3, %2 : (tensor<8xf64>, tensor<8xf64>) -> tensor<8xf64>
  func.return %4 : tensor<8xf64>
}

// -----

// Another factor, another argument, another constant: not GELU.
// CHECK-LABEL: @others
func.func @others(%x: tensor<8xf32>, %y: tensor<8xf32>) -> (tensor<8xf32>, tensor<8xf32>) {
  // CHECK-NOT: mge.gelu
  %sqrt2 = mge.constant {value = dense<1.41421354> : tensor<f32>} : () -> tensor<f32>
  %one = mge.constant {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = mge.constant {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.div %x, %sqrt2 : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %1 = mge.erf %0 : (tensor<8xf32>) -> tensor<8xf32>
  %2 = mge.add %1, %one : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %3 = mge.mul %y, %2 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %4 = mge.mul %3, %half : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %5 = mge.erf %x : (tensor<8xf32>) -> tensor<8xf32>
  %6 = mge.add %5, %one : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %7 = mge.mul %x, %6 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %8 = mge.mul %7, %half : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  func.return %4, %8 : tensor<8xf32>, tensor<8xf32>
}
