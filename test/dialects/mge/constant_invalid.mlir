// RUN: mgec-opt %s --verify-diagnostics --parsing-diagnostics --split-input-file

// expected-error {{mge.constant: result type is tensor<3xf32>, expected tensor<2xf32>}}
%0 = mge.constant {value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> tensor<3xf32>

// -----

// expected-error {{mge.constant: result type is tensor<f64>, expected tensor<f32>}}
%0 = mge.constant {value = dense<1.0> : tensor<f32>} : () -> tensor<f64>

// -----

// expected-error {{mge.constant: attribute value is missing}}
%0 = mge.constant : () -> tensor<f32>

// -----

// expected-error {{mge.weight: result type is tensor<2x3xf32>, expected tensor<3x2xf32>}}
%0 = mge.weight {key = "w", shape = [3, 2], dtype = f32} : () -> tensor<2x3xf32>

// -----

// expected-error {{mge.weight: attribute dtype is missing}}
%0 = mge.weight {key = "w", shape = [3, 2]} : () -> tensor<3x2xf32>
