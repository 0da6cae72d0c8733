// Draws the figures of a page that nbconvert made of a notebook, and saves those of JupyterLab.
window.mmctr ??= {
  // plotly.js: the page's own, or else unpacked once from what the notebook brings along.
  plotly() {
    return (this.loading ??= (async () => {
      if (window.Plotly) return window.Plotly;
      const packed = atob(document.getElementById("mmctr-plotly").textContent);
      const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
      const source = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(source).text();
      document.head.append(script);
      return window.Plotly;
    })());
  },

  async draw(place) {
    const { data, layout } = JSON.parse(place.nextElementSibling.textContent);
    const plotly = await this.plotly();
    place.textContent = "";
    await plotly.newPlot(place, data, layout, { responsive: true, displaylogo: false });
  },

  // The figure that stands before a button, as a file.
  async save(button, format) {
    const before = (figure) =>
      figure.compareDocumentPosition(button) & Node.DOCUMENT_POSITION_FOLLOWING;
    const figure = [...document.querySelectorAll(".js-plotly-plot")].findLast(before);
    const size = { width: figure.clientWidth, height: figure.clientHeight };
    const { data, layout } = figure;
    const file = { format, filename: button.dataset.name, scale: format === "png" ? 2 : 1, ...size };
    await (await this.plotly()).downloadImage({ data, layout }, file);
  },
};
