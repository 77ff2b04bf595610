// RUN: mgec-opt %s --verify-diagnostics --parsing-diagnostics --split-input-file

// Every error once. A comment says what the error of its piece must contain.

func.func @dtype_of_first(%x: tensor<2xi32>) {
  // expected-error {{exp: inp has dtype int32, which is not supported}}
  %0 = mge.exp %x : (tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

func.func @dtypes_differ(%x: tensor<2xf32>, %y: tensor<2xf16>) {
  // expected-error {{add: operands have dtypes float32 and float16}}
  %0 = mge.add %x, %y : (tensor<2xf32>, tensor<2xf16>) -> tensor<2xf32>
  func.return
}

// -----

func.func @shapes(%x: tensor<2x3xf32>, %y: tensor<2xf32>) {
  // expected-error {{mul: shapes (2, 3) and (2,) do not broadcast: sizes 3 and 2 differ on axis -1}}
  %0 = mge.mul %x, %y : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @result_shape(%x: tensor<2x3xf32>) {
  // expected-error {{mge.neg: result type is tensor<3x2xf32>, expected tensor<2x3xf32>}}
  %0 = mge.neg %x : (tensor<2x3xf32>) -> tensor<3x2xf32>
  func.return
}

// -----

func.func @result_dtype(%x: tensor<2xf32>) {
  // expected-error {{mge.less: result type is tensor<2xf32>, expected tensor<2xi1>}}
  %0 = mge.less %x, %x : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @condition(%c: tensor<2xi8>, %x: tensor<2xf32>) {
  // expected-error {{select: condition has dtype int8, which is not supported}}
  %0 = mge.select %c, %x, %x : (tensor<2xi8>, tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @branches(%c: tensor<2xi1>, %x: tensor<2xf32>, %y: tensor<2xf64>) {
  // expected-error {{select: lhs is float32 but rhs is float64}}
  %0 = mge.select %c, %x, %y : (tensor<2xi1>, tensor<2xf32>, tensor<2xf64>) -> tensor<2xf32>
  func.return
}

// -----

func.func @not_a_tensor(%x: f32) {
  // expected-error {{expected a ranked tensor, got f32}}
  %0 = mge.neg %x : (f32) -> f32
  func.return
}

// -----

func.func @element(%x: tensor<2xi7>) {
  // expected-error {{element type i7 is not an mge element type}}
  %0 = mge.neg %x : (tensor<2xi7>) -> tensor<2xi7>
  func.return
}

// -----

func.func @cast_to(%x: tensor<2xf32>) {
  // expected-error {{element type index is not an mge element type}}
  %0 = mge.cast %x {dtype = index} : (tensor<2xf32>) -> tensor<2xindex>
  func.return
}

// -----

func.func @too_few(%x: tensor<2xf32>) {
  // expected-error {{Expected 2 operands, but got 1}}
  %0 = mge.add %x : (tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @unknown_attribute(%x: tensor<2xf32>) {
  // expected-error {{mge.exp: unknown attribute base; it takes no attributes}}
  %0 = mge.exp %x {base = 2} : (tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @missing_attribute(%x: tensor<2xf32>) {
  // expected-error {{mge.cast: attribute dtype is missing}}
  %0 = mge.cast %x : (tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @dangling_comma(%x: tensor<2xf32>) {
  // expected-error {{mge.add: expected an operand}}
  %0 = mge.add %x, : (tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

// expected-error {{is not registered}}
%0 = mge.no_such_op : () -> tensor<2xf32>
