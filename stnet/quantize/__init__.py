"""Low precision: bfloat16 and int8 networks, calibration, and the report that says whether they agree with float32."""
