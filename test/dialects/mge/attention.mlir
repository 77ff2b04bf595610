// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @attention
func.func @attention(%q: tensor<1x3x2x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x5x2x6xf32>) {
  // CHECK: mge.attention %{{.*}}, %{{.*}}, %{{.*}} {scale = 0.5} : (tensor<1x3x2x4xf32>, tensor<1x5x2x4xf32>, tensor<1x5x2x6xf32>) -> tensor<1x3x2x6xf32>
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x2x4xf32>, tensor<1x5x2x4xf32>, tensor<1x5x2x6xf32>) -> tensor<1x3x2x6xf32>
  func.return
}

// CHECK-LABEL: @everything
func.func @everything(%q: tensor<2x3x4x8xbf16>, %k: tensor<2x3x2x8xbf16>, %v: tensor<2x3x2x8xbf16>, %b: tensor<4x1x3xbf16>) {
  // CHECK: mge.attention %{{.*}}, %{{.*}}, %{{.*}}, bias = %{{.*}} {scale = 1.0, causal = true} : (tensor<2x3x4x8xbf16>, tensor<2x3x2x8xbf16>, tensor<2x3x2x8xbf16>, tensor<4x1x3xbf16>) -> tensor<2x3x4x8xbf16>
  %r = mge.attention %q, %k, %v, bias = %b {scale = 1.0, causal = true} : (tensor<2x3x4x8xbf16>, tensor<2x3x2x8xbf16>, tensor<2x3x2x8xbf16>, tensor<4x1x3xbf16>) -> tensor<2x3x4x8xbf16>
  func.return
}
