"""Golden parameters, written by Paddle's own static-graph writers: python paddle_writers.py FOLDER SPEC.json

SPEC: {"name": shape}. Makes FOLDER/combined, FOLDER/folder/ and FOLDER/pickle.pdparams. A process of its own,
because static mode and the old program form are switches of the whole process.
"""

import json
import os
import sys

os.environ.update({"FLAGS_enable_pir_api": "0"})
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))

import paddle  # noqa: E402
from golden_params import golden_param  # noqa: E402
from paddle.static import io  # noqa: E402


def main(folder, spec):
    paddle.enable_static()
    program = paddle.static.Program()
    with paddle.static.program_guard(program, paddle.static.Program()):
        for name, shape in spec.items():
            paddle.static.create_parameter(shape, "float32", name=name)
    executor = paddle.static.Executor(paddle.CPUPlace())
    for name, shape in spec.items():
        paddle.static.global_scope().var(name).get_tensor().set(golden_param(name, shape), paddle.CPUPlace())
    variables = [program.global_block().var(name) for name in sorted(spec)]
    io.save_vars(executor, folder, program, vars=variables, filename="combined")
    io.save_vars(executor, os.path.join(folder, "folder"), program, vars=variables)
    paddle.static.save(program, os.path.join(folder, "pickle"))


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        main(sys.argv[1], json.load(file))
