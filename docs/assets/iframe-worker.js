// Search in pages that are opened from the disk. Browsers start no workers for file://, so
// that the script of a worker runs in a hidden frame of the page instead. Material's plugin
// "offline" would load such a shim from the network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      // What the worker posts arrives in the page.
      this.inner.postMessage = data => {
        this.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }))
      }
      const script = this.inner.document.createElement("script")
      script.src = url
      this.ready = new Promise((resolve, reject) => {
        script.onload = resolve
        script.onerror = reject
      })
      this.inner.document.body.append(script)
    }
    postMessage(message) {
      const inner = this.inner
      this.ready.then(() => {
        const data = inner.structuredClone(message)
        inner.dispatchEvent(new inner.MessageEvent("message", { data }))
      })
    }
    terminate() {}
  }
}
