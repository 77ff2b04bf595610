// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: matmul: lhs has rank 1 but needs rank 2 or more
func.func @f(%lhs: tensor<3xf32>, %rhs: tensor<3x4xf32>) {
  %out = mge.matmul %lhs, %rhs : (tensor<3xf32>, tensor<3x4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: matmul: rhs has rank 1 but needs rank 2 or more
func.func @f(%lhs: tensor<2x3xf32>, %rhs: tensor<4xf32>) {
  %out = mge.matmul %lhs, %rhs : (tensor<2x3xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: matmul: lhs has 3 columns but rhs has 4 rows
func.func @f(%lhs: tensor<2x3xf32>, %rhs: tensor<4x5xf32>) {
  %out = mge.matmul %lhs, %rhs : (tensor<2x3xf32>, tensor<4x5xf32>) -> tensor<2x5xf32>
  func.return
}

// -----

// CHECK: matmul: shapes (2,) and (5,) do not broadcast: sizes 2 and 5 differ on axis -1
func.func @f(%lhs: tensor<2x2x3xf32>, %rhs: tensor<5x3x4xf32>) {
  %out = mge.matmul %lhs, %rhs : (tensor<2x2x3xf32>, tensor<5x3x4xf32>) -> tensor<2x2x4xf32>
  func.return
}

// -----

// CHECK: matmul: lhs is float32 but rhs is float64
func.func @f(%lhs: tensor<2x3xf32>, %rhs: tensor<3x4xf64>) {
  %out = mge.matmul %lhs, %rhs : (tensor<2x3xf32>, tensor<3x4xf64>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: matmul: lhs has dtype bool, which is not supported
func.func @f(%lhs: tensor<2x3xi1>, %rhs: tensor<3x4xi1>) {
  %out = mge.matmul %lhs, %rhs : (tensor<2x3xi1>, tensor<3x4xi1>) -> tensor<2x4xi1>
  func.return
}

// -----

// CHECK: mge.matmul: result type is
func.func @f(%lhs: tensor<2x3xf32>, %rhs: tensor<3x4xf32>) {
  %out = mge.matmul %lhs, %rhs : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<4x2xf32>
  func.return
}
