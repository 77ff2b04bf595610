// RUN: mgec-opt %s -p mge-assign-layouts --split-input-file | filecheck %s
// RUN: mgec-opt %s -p mge-assign-layouts,mge-canonicalize,mge-dce --split-input-file | filecheck %s --check-prefix CLEAN

// Everything between two convolutions follows them; the borders see what they saw.
// CHECK-LABEL: @chain
// CLEAN-LABEL: @chain
func.func @chain(%x: tensor<1x3x8x8xf32>) -> tensor<1x4x4x4xf32> {
  // CHECK: %[[X:.*]] = mge.transpose %x {perm = [0, 2, 3, 1]}
  // CHECK: mge.conv %[[X]], %{{.*}} {channels_last = true} : (tensor<1x8x8x3xf32>, tensor<4x3x1x1xf32>) -> tensor<1x8x8x4xf32>
  // CLEAN: %[[X:.*]] = mge.transpose %x {perm = [0, 2, 3, 1]}
  // CLEAN: %[[Y:.*]] = mge.conv %[[X]], %{{.*}} {channels_last = true}
  // CLEAN-NOT: mge.transpose
  // CLEAN: mge.add %[[Y]], %{{.*}} : (tensor<1x8x8x4xf32>, tensor<1x1x1x4xf32>)
  // CLEAN: mge.max_pool %{{.*}} {kernel = [2, 2], stride = [2, 2]{{.*}}channels_last = true} : (tensor<1x8x8x4xf32>) -> tensor<1x4x4x4xf32>
  // CLEAN: mge.concat %{{.*}}, %{{.*}} {axis = 3}
  // CLEAN: %[[Z:.*]] = mge.conv %{{.*}}, %{{.*}} {channels_last = true}
  // CLEAN: mge.transpose %[[Z]] {perm = [0, 3, 1, 2]}
  %w = mge.weight {key = "w", shape = [4, 3, 1, 1], dtype = f32} : () -> tensor<4x3x1x1xf32>
  %v = mge.weight {key = "v", shape = [4, 8, 1, 1], dtype = f32} : () -> tensor<4x8x1x1xf32>
  %b = mge.weight {key = "b", shape = [4, 1, 1], dtype = f32} : () -> tensor<4x1x1xf32>
  %0 = mge.conv %x, %w : (tensor<1x3x8x8xf32>, tensor<4x3x1x1xf32>) -> tensor<1x4x8x8xf32>
  %1 = mge.add %0, %b : (tensor<1x4x8x8xf32>, tensor<4x1x1xf32>) -> tensor<1x4x8x8xf32>
  %2 = mge.max_pool %1 {kernel = [2, 2], stride = [2, 2]} : (tensor<1x4x8x8xf32>) -> tensor<1x4x4x4xf32>
  %3 = mge.concat %2, %2 {axis = 1} : (tensor<1x4x4x4xf32>, tensor<1x4x4x4xf32>) -> tensor<1x8x4x4xf32>
  %4 = mge.conv %3, %v : (tensor<1x8x4x4xf32>, tensor<4x8x1x1xf32>) -> tensor<1x4x4x4xf32>
  func.return %4 : tensor<1x4x4x4xf32>
}

// -----

// A mean over the image keeps the order of what is left; flattening moves nothing.
// CLEAN-LABEL: @head
func.func @head(%x: tensor<2x3x4x4xf32>) -> (tensor<2x5xf32>, tensor<2x5xf32>) {
  // CLEAN: %[[Y:.*]] = mge.conv %{{.*}} {channels_last = true}
  // CLEAN: mge.reduce_sum %[[Y]] {axes = [1, 2]} : (tensor<2x4x4x5xf32>) -> tensor<2x5xf32>
  // CLEAN: %[[K:.*]] = mge.reduce_max %[[Y]] {axes = [1, 2], keepdims = true} : (tensor<2x4x4x5xf32>) -> tensor<2x1x1x5xf32>
  // CLEAN: mge.reshape %[[K]] {shape = [2, 5]}
  // CLEAN-NOT: mge.transpose
  %w = mge.weight {key = "w", shape = [5, 3, 1, 1], dtype = f32} : () -> tensor<5x3x1x1xf32>
  %0 = mge.conv %x, %w : (tensor<2x3x4x4xf32>, tensor<5x3x1x1xf32>) -> tensor<2x5x4x4xf32>
  %1 = mge.reduce_sum %0 {axes = [2, 3]} : (tensor<2x5x4x4xf32>) -> tensor<2x5xf32>
  %2 = mge.reduce_max %0 {axes = [2, 3], keepdims = true} : (tensor<2x5x4x4xf32>) -> tensor<2x5x1x1xf32>
  %3 = mge.reshape %2 {shape = [2, 5]} : (tensor<2x5x1x1xf32>) -> tensor<2x5xf32>
  func.return %1, %3 : tensor<2x5xf32>, tensor<2x5xf32>
}

// -----

// A scale per channel that is computed, a pad and a slice: their attributes move too.
// CLEAN-LABEL: @gate
func.func @gate(%x: tensor<1x3x4x5xf32>, %s: tensor<4x1x1xf32>) -> tensor<1x4x5x3xf32> {
  // CLEAN: %[[Y:.*]] = mge.conv %{{.*}} {channels_last = true}
  // CLEAN: %[[S:.*]] = mge.reshape %s {shape = [1, 1, 1, 4]}
  // CLEAN: mge.mul %[[Y]], %[[S]] : (tensor<1x4x5x4xf32>, tensor<1x1x1x4xf32>)
  // CLEAN: mge.pad %{{.*}} {low = [0, 1, 0, 0], high = [0, 0, 0, 0]}
  // CLEAN: mge.slice %{{.*}} {starts = [0, 0, 0, 0], stops = [1, 5, 3, 4], steps = [1, 1, 1, 1]}
  // CLEAN: mge.transpose %{{.*}} {perm = [0, 3, 1, 2]}
  %w = mge.weight {key = "w", shape = [4, 3, 1, 1], dtype = f32} : () -> tensor<4x3x1x1xf32>
  %0 = mge.conv %x, %w : (tensor<1x3x4x5xf32>, tensor<4x3x1x1xf32>) -> tensor<1x4x4x5xf32>
  %1 = mge.mul %0, %s : (tensor<1x4x4x5xf32>, tensor<4x1x1xf32>) -> tensor<1x4x4x5xf32>
  %2 = mge.pad %1 {low = [0, 0, 1, 0], high = [0, 0, 0, 0]} : (tensor<1x4x4x5xf32>) -> tensor<1x4x5x5xf32>
  %3 = mge.slice %2 {starts = [0, 0, 0, 0], stops = [1, 4, 5, 3], steps = [1, 1, 1, 1]} : (tensor<1x4x5x5xf32>) -> tensor<1x4x5x3xf32>
  func.return %3 : tensor<1x4x5x3xf32>
}

// -----

// Weights that are being trained stay where the optimizer updates them.
// CHECK-LABEL: @training
func.func @training(%x: tensor<1x3x4x4xf32>, %w: tensor<4x3x1x1xf32>) -> tensor<1x4x4x4xf32> {
  // CHECK-NOT: channels_last
  // CHECK-NOT: mge.transpose
  %0 = mge.conv %x, %w : (tensor<1x3x4x4xf32>, tensor<4x3x1x1xf32>) -> tensor<1x4x4x4xf32>
  func.return %0 : tensor<1x4x4x4xf32>
}
