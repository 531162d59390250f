# TensorRT on a desktop's or server's NVIDIA GPU, with driver 580 or later. From the project's root:
#     docker build -f deploy/docker/desktop.Dockerfile -t vidseg:desktop .
# TensorRT comes with the extra; pycuda is compiled, without cuRAND, which nothing here uses.
FROM nvidia/cuda:13.0.0-devel-ubuntu24.04 AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN echo "CUDA_ENABLE_CURAND = False" > "$HOME/.aksetup-defaults.py" \
    && python3 -m venv /opt/vidseg \
    && /opt/vidseg/bin/pip install --no-cache-dir ".[tensorrt]"

FROM nvidia/cuda:13.0.0-base-ubuntu24.04
# What opencv-python loads.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0t64 python3 \
    && rm -rf /var/lib/apt/lists/*
# The user's number is that of who owns the mounted folder; the image brings one called ubuntu, which may have it.
ARG UID=1000
RUN if id ubuntu; then userdel --remove ubuntu; fi \
    && useradd --create-home --uid "$UID" --groups video vidseg \
    && install --directory --owner=vidseg --mode=700 /home/vidseg/.cache /home/vidseg/.cache/vidseg /work
COPY --from=build /opt/vidseg /opt/vidseg
ENV PATH=/opt/vidseg/bin:$PATH
USER vidseg
WORKDIR /work
ENTRYPOINT ["vidseg"]
CMD ["doctor"]
