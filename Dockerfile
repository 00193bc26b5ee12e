# StNet with all it needs. On the CPU:
#   docker build -t stnet .
#   docker run --rm --shm-size=2g -v "$PWD/data:/data" -v stnet-weights:/home/stnet/.paddle stnet \
#       predict STNET ./configs/stnet.yaml --video_path=/data/clip.mp4 --save_dir=/data/results
# A page and an API at http://127.0.0.1:8080/; the log has the link with the token, unless STNET_TOKEN sets one:
#   docker run --rm -p 127.0.0.1:8080:8080 -v stnet-weights:/home/stnet/.paddle stnet \
#       serve STNET ./configs/stnet.yaml
# It runs as the user stnet (1000); to write into a folder of another user: --user "$(id -u):$(id -g)" -e HOME=/tmp
# With GPUs, for CUDA 12.6 (then docker run --gpus all):
#   docker build -t stnet --build-arg PADDLE_PACKAGE='paddlepaddle-gpu>=3.0,<4' \
#       --build-arg PIP_EXTRA_INDEX_URL=https://www.paddlepaddle.org.cn/packages/stable/cu126/ .
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libgomp1 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /stnet
ENV PIP_NO_CACHE_DIR=1
ARG PADDLE_PACKAGE="paddlepaddle>=3.0,<4"
ARG PIP_EXTRA_INDEX_URL=""
COPY . .
RUN bash run.sh setup onnx serve
RUN useradd --create-home --uid 1000 stnet \
    && mkdir /home/stnet/.paddle \
    && chown -R stnet /home/stnet/.paddle \
    && chown stnet /stnet
USER stnet
# Of a server alone: train, eval and predict end by themselves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD grep -q serve_model /proc/1/cmdline || exit 0; \
    .venv/bin/python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"
# Inside, all addresses: which of them are reached from outside, -p says. A token is asked for.
ENV host=0.0.0.0
EXPOSE 8080
ENTRYPOINT ["bash", "run.sh"]
CMD ["help"]
