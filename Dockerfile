# StNet with all it needs. On the CPU:
#   docker build -t stnet .
#   docker run --rm --shm-size=2g -v "$PWD/data:/data" -v stnet-weights:/root/.paddle stnet \
#       predict STNET ./configs/stnet.yaml --video_path=/data/clip.mp4 --save_dir=/data/results
# A page and an API at http://127.0.0.1:8080/; the log has the link with the token, unless STNET_TOKEN sets one:
#   docker run --rm -p 127.0.0.1:8080:8080 -v stnet-weights:/root/.paddle stnet \
#       serve STNET ./configs/stnet.yaml
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
# Inside, all addresses: which of them are reached from outside, -p says. A token is asked for.
ENV host=0.0.0.0
EXPOSE 8080
ENTRYPOINT ["bash", "run.sh"]
CMD ["help"]
