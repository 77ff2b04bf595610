// RUN: mgec-opt %s --verify-diagnostics --parsing-diagnostics --split-input-file

// Every error once; those that only the generic form can make are written in it.

func.func @argument_type(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: block argument 0 is tensor<3xf32> but operand 0 is tensor<2xf32>}}
  "mge.kernel"(%x) <{kernel_name = "k"}> ({
  ^bb0(%a: tensor<3xf32>):
    mge.yield
  }) : (tensor<2xf32>) -> ()
  func.return
}

// -----

func.func @argument_count(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: 2 block arguments for 1 operands}}
  "mge.kernel"(%x) <{kernel_name = "k"}> ({
  ^bb0(%a: tensor<2xf32>, %b: tensor<2xf32>):
    mge.yield
  }) : (tensor<2xf32>) -> ()
  func.return
}

// -----

func.func @yield_type(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: yielded value 0 is tensor<2xf32> but result 0 is tensor<3xf32>}}
  %0 = mge.kernel "k" (%a = %x : tensor<2xf32>) -> tensor<3xf32> {
    mge.yield %a : tensor<2xf32>
  }
  func.return
}

// -----

func.func @yield_count(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: 0 yielded values for 1 results}}
  %0 = mge.kernel "k" (%a = %x : tensor<2xf32>) -> tensor<2xf32> {
    mge.yield
  }
  func.return
}

// -----

func.func @no_yield(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: the body does not end with mge.yield}}
  mge.kernel "k" (%a = %x : tensor<2xf32>) -> () {
    "test.termop"() : () -> ()
  }
  func.return
}

// -----

func.func @no_terminator(%x: tensor<2xf32>) {
  // expected-error {{mge.neg terminates block in single-block region but is not a terminator}}
  mge.kernel "k" (%a = %x : tensor<2xf32>) -> () {
    %0 = mge.neg %a : (tensor<2xf32>) -> tensor<2xf32>
  }
  func.return
}

// -----

func.func @other_dialect(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: arith.negf is not an mge op}}
  mge.kernel "k" (%a = %x : tensor<2xf32>) -> () {
    %0 = arith.negf %a : tensor<2xf32>
    mge.yield
  }
  func.return
}

// -----

func.func @in_place_range(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: in_place [0 = 1] is out of range for 1 results and 1 operands}}
  %0 = mge.kernel "k" in_place [0 = 1] (%a = %x : tensor<2xf32>) -> tensor<2xf32> {
    mge.yield %a : tensor<2xf32>
  }
  func.return
}

// -----

func.func @in_place_types(%x: tensor<2xf32>, %y: tensor<2xf64>) {
  // expected-error {{mge.kernel: result 0 of type tensor<2xf32> cannot take over operand 1 of type tensor<2xf64>}}
  %0 = mge.kernel "k" in_place [0 = 1] (%a = %x : tensor<2xf32>, %b = %y : tensor<2xf64>) -> tensor<2xf32> {
    mge.yield %a : tensor<2xf32>
  }
  func.return
}

// -----

func.func @in_place_twice(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: in_place takes over operand 0 twice}}
  %0, %1 = mge.kernel "k" in_place [0 = 0, 1 = 0] (%a = %x : tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>) {
    mge.yield %a, %a : tensor<2xf32>, tensor<2xf32>
  }
  func.return
}

// -----

func.func @in_place_odd(%x: tensor<2xf32>) {
  // expected-error {{mge.kernel: in_place is not one pair for each result in it}}
  %0 = "mge.kernel"(%x) <{kernel_name = "k", in_place = array<i64: 0>}> ({
  ^bb0(%a: tensor<2xf32>):
    mge.yield %a : tensor<2xf32>
  }) : (tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @outside(%x: tensor<2xf32>) {
  // expected-error {{Operation using value defined out of its IsolatedFromAbove parent}}
  mge.kernel "k" () -> () {
    %0 = mge.neg %x : (tensor<2xf32>) -> tensor<2xf32>
    mge.yield
  }
  func.return
}

// -----

func.func @stray_yield(%x: tensor<2xf32>) {
  // expected-error {{'mge.yield' expects parent op 'mge.kernel'}}
  mge.yield %x : tensor<2xf32>
}

// -----

func.func @no_name(%x: tensor<2xf32>) {
  // expected-error {{for the name of the kernel}}
  mge.kernel (%a = %x : tensor<2xf32>) -> () {
    mge.yield
  }
  func.return
}
