# loadtrt on a CPU: ONNX Runtime and simulated engines. This file has not been built where loadtrt is developed.
#   docker build -t loadtrt .
#   docker run --rm -v "$PWD:/work" loadtrt run --config /configs/googlenet.yaml --json run.json
FROM python:3.12-slim
# TensorRT on a GPU: this line in place of the one above, then `docker run --gpus all`. Choose the tag whose TensorRT built
# your plans; cuda-bindings is added below by the extra.
# FROM nvcr.io/nvidia/tensorrt:25.10-py3
ARG EXTRAS=""
COPY . /source
RUN pip install --no-cache-dir "/source${EXTRAS}" && cp -r /source/configs /configs && rm -r /source
WORKDIR /work
ENTRYPOINT ["loadtrt"]
CMD ["--help"]
