"""`measure_bias`, `measure_meta_gradient`."""
