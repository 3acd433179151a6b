# For GPU users. NOT BUILT by the project so far: no Docker daemon was at hand where it was written.
#
#   docker build -t rmas_train .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" rmas_train stage=plan
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" --entrypoint torchrun rmas_train \
#       --nproc-per-node 8 -m rmas_train stage=outer experiment=sequential_light
#
# pip's torch wheels bring CUDA's libraries; the host gives the driver and the NVIDIA container
# toolkit. Another torch: --build-arg PIP_INDEX_URL=<index>.
FROM python:3.12-slim-bookworm

ARG PIP_INDEX_URL
# Extras of pyproject.toml; deepspeed compiles at its first start and finds its compiler below.
ARG EXTRAS=track,endpoint,tools,deepspeed

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ ninja-build \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY rmas_train rmas_train
COPY conf conf
COPY data_recipes data_recipes
COPY prompts prompts
COPY shapes shapes
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" && rm -rf /src/*

RUN useradd --create-home trainer
USER trainer
ENV HF_HOME=/work/.cache/huggingface
WORKDIR /work
ENTRYPOINT ["rmas-train"]
CMD ["--help"]
