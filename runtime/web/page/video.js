// Live video by WebRTC. The server is the only other side: no server on the internet is asked for addresses.

const START_MS = 5000;
const STALLED_AFTER = 5;

const codecs = window.RTCRtpReceiver?.getCapabilities?.("video")?.codecs
  .filter((codec) => ["video/h264", "video/rtx"].includes(codec.mimeType.toLowerCase())) ?? [];

export const isPossible = codecs.some((codec) => codec.mimeType.toLowerCase() === "video/h264");

export class LiveVideo {
  // Plays what the address answers an offer with; calls onFail once where it does not play, or no more.
  constructor(element, address, onFail) {
    Object.assign(this, { element, address, onFail, frames: 0, checks: 0, isOver: false });
    this.connection = new RTCPeerConnection();
    this.timer = setTimeout(() => { if (element.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) this.fail(); }, START_MS);
    this.start().catch(() => this.fail());
  }

  async start() {
    const { connection, element } = this;
    connection.addEventListener("track", ({ receiver, track }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0; // the newest picture, not the smoothest
      element.srcObject = new MediaStream([track]);
    });
    connection.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(connection.connectionState)) this.fail();
    });
    connection.addTransceiver("video", { direction: "recvonly" }).setCodecPreferences(codecs);
    await connection.setLocalDescription();
    const answer = await fetch(this.address, {
      method: "POST", headers: { "Content-Type": "application/sdp" }, body: connection.localDescription.sdp,
    });
    if (!answer.ok) throw new Error(answer.statusText);
    await connection.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  }

  // Called each second while pictures have to come.
  check() {
    const frames = this.element.getVideoPlaybackQuality().totalVideoFrames;
    this.checks = frames === this.frames ? this.checks + 1 : 0;
    this.frames = frames;
    if (this.checks >= STALLED_AFTER) this.fail();
  }

  fail() {
    if (this.isOver) return;
    this.stop();
    this.onFail();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
    this.connection.close();
    this.element.srcObject = null;
  }
}
