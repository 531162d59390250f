# Models on the CPU, in ONNX Runtime or OpenVINO, on x86-64 and aarch64. From the project's root:
#     docker build -f deploy/docker/cpu.Dockerfile -t vidseg:cpu .
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN python -m venv /opt/vidseg && /opt/vidseg/bin/pip install --no-cache-dir ".[openvino]"

FROM python:3.13-slim-bookworm
# What opencv-python loads.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# The user's number is that of who owns the mounted folder; the groups are for cameras.
ARG UID=1000
RUN useradd --create-home --uid "$UID" --groups video vidseg \
    && install --directory --owner=vidseg --mode=700 /home/vidseg/.cache /home/vidseg/.cache/vidseg /work
COPY --from=build /opt/vidseg /opt/vidseg
ENV PATH=/opt/vidseg/bin:$PATH
USER vidseg
WORKDIR /work
ENTRYPOINT ["vidseg"]
CMD ["doctor"]
