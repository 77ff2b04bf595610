// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: reshape: input has 6 elements but shape (4,) has 4
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reshape %inp {shape = [4]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reshape: shape (-1,) has a negative size
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reshape %inp {shape = [-1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: transpose: perm (0,) does not name each axis of rank 2 once
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.transpose %inp {perm = [0]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: transpose: perm (1, 1) does not name each axis of rank 2 once
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.transpose %inp {perm = [1, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: broadcast: shape (2, 3) does not broadcast to (4, 2, 4)
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.broadcast %inp {shape = [4, 2, 4]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: broadcast: shape (2, 3) does not broadcast to (3,)
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.broadcast %inp {shape = [3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: broadcast: shape (-2, 3) has a negative size
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.broadcast %inp {shape = [-2, 3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: slice: starts has 1 entries but inp has rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.slice %inp {starts = [0], stops = [2, 3], steps = [1, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: slice: the step of axis 1 is 0
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.slice %inp {starts = [0, 0], stops = [2, 3], steps = [1, 0]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: slice: stop 4 of axis 1 is not within [0, 3], but the axis has size 3 and the step is 1
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.slice %inp {starts = [0, 0], stops = [2, 4], steps = [1, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: slice: start 3 of axis 1 is not within [-1, 2], but the axis has size 3 and the step is -1
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.slice %inp {starts = [0, 3], stops = [2, -1], steps = [1, -1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: unslice: shape has 1 entries but inp has rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.unslice %inp {starts = [0, 0], steps = [1, 1], shape = [2]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: unslice: shape (2, -3) has a negative size
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.unslice %inp {starts = [0, 0], steps = [1, 1], shape = [2, -3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: unslice: the step of axis 0 is 0
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.unslice %inp {starts = [0, 0], steps = [0, 1], shape = [2, 3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: unslice: axis 1 writes places 1 to 5 but the result has size 5
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.unslice %inp {starts = [0, 1], steps = [1, 2], shape = [2, 5]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: reverse: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reverse %inp {axes = [2]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: pad: mode 'wrap' does not exist
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.pad %inp {low = [0, 0], high = [0, 0], mode = "wrap"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: pad: low has 1 entries but inp has rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.pad %inp {low = [0], high = [0, 0]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: pad: axis 1 is padded by (0, -1), but padding cannot be negative
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.pad %inp {low = [0, 0], high = [0, -1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: pad: value -1.0 is not a value of dtype uint8
func.func @f(%inp: tensor<2xui8>) {
  %out = mge.pad %inp {low = [0], high = [1], value = -1.0} : (tensor<2xui8>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: pad: axis 0 is padded by (0, 2) in mode reflect but has size 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.pad %inp {low = [0, 0], high = [2, 0], mode = "reflect"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: pad: axis 0 is padded by (1, 0) in mode replicate but has size 0
func.func @f(%inp: tensor<0x3xf32>) {
  %out = mge.pad %inp {low = [1, 0], high = [0, 0], mode = "replicate"} : (tensor<0x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: concat: there is nothing to concatenate
func.func @f() {
  %out = mge.concat {axis = 0} : () -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: concat: axis 2 is out of range for rank 2
func.func @f(%in0: tensor<2x3xf32>) {
  %out = mge.concat %in0 {axis = 2} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: concat: inputs have dtypes float32 and int8
func.func @f(%in0: tensor<2x3xf32>, %in1: tensor<2x3xi8>) {
  %out = mge.concat %in0, %in1 {axis = 0} : (tensor<2x3xf32>, tensor<2x3xi8>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: concat: shapes (2, 3) and (3, 3) differ on another axis than 1
func.func @f(%in0: tensor<2x3xf32>, %in1: tensor<3x3xf32>) {
  %out = mge.concat %in0, %in1 {axis = 1} : (tensor<2x3xf32>, tensor<3x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: concat: shapes (2, 3) and (2,) differ on another axis than 1
func.func @f(%in0: tensor<2x3xf32>, %in1: tensor<2xf32>) {
  %out = mge.concat %in0, %in1 {axis = 1} : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: repeat: axis 5 is out of range for rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.repeat %inp {repeats = 2, axis = 5} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: repeat: repeats is -1, but cannot be negative
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.repeat %inp {repeats = -1, axis = 1} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: tile: reps has 1 entries but inp has rank 2
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.tile %inp {reps = [2]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: tile: reps (2, -1) has a negative entry
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.tile %inp {reps = [2, -1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: iota: the result has dtype bool, which is not supported
func.func @f() {
  %out = mge.iota {shape = [2], axis = 0, dtype = i1} : () -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: iota: axis 0 is out of range for rank 0
func.func @f() {
  %out = mge.iota {shape = [], axis = 0, dtype = f32} : () -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: iota: shape (-2,) has a negative size
func.func @f() {
  %out = mge.iota {shape = [-2], axis = 0, dtype = f32} : () -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: iota: step 0.5 is not a value of dtype int64
func.func @f() {
  %out = mge.iota {shape = [2], axis = 0, dtype = ui16, step = 0.5} : () -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: mge.reshape: result type is tensor<7xf32>, expected tensor<3x2xf32>
func.func @f(%inp: tensor<2x3xf32>) {
  %out = mge.reshape %inp {shape = [3, 2]} : (tensor<2x3xf32>) -> tensor<7xf32>
  func.return
}
