"""Low precision: bfloat16 and int8 networks, calibration, and validation reports of agreement with float32."""
