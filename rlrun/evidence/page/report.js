"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const place = document.getElementById("chart");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = { what: charts[0].what, axis: "timesteps" };
  let plot = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) =>
    Math.abs(value) >= 1e6 ? +(value / 1e6).toPrecision(4) + "M"
      : Math.abs(value) >= 1e3 ? +(value / 1e3).toPrecision(4) + "k" : +value.toPrecision(4) + "";
  const read = (value) => (value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: 2 }));

  function draw() {
    const chart = charts.find((one) => one.what === chosen.what);
    const data = chart.axes[chosen.axis] || chart.axes.timesteps;
    const series = [{ label: chosen.axis, value: (_, v) => read(v) }];
    const columns = [data.x];
    const bands = [];
    for (const group of data.groups) {
      const stroke = group.colour === "text" ? colour("--text") : group.colour;
      const points = { show: data.x.length <= 40 };
      series.push({ label: group.name, stroke, width: 2, dash: group.dash, points, spanGaps: true, value: (_, v) => read(v) });
      columns.push(group.centre);
      if (group.low) {
        const edge = { stroke: "transparent", points: { show: false }, spanGaps: true, value: (_, v) => read(v) };
        series.push({ ...edge, label: "to" }, { ...edge, label: "from" });
        columns.push(group.high, group.low);
        const at = series.length - 2;
        bands.push({ series: [at, at + 1], fill: stroke + "33" });
      }
    }
    const line = { stroke: colour("--text"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const options = {
      width: place.clientWidth,
      height: Math.max(260, Math.min(420, window.innerHeight * 0.6)),
      scales: { x: { time: false } },
      axes: [
        { ...line, label: chosen.axis, values: (_, ticks) => ticks.map(short) },
        { ...line, label: chart.label, size: 64, values: (_, ticks) => ticks.map(short) },
      ],
      series, bands,
    };
    if (plot) plot.destroy();
    place.textContent = "";
    plot = new uPlot(options, columns, place);
    fingers(plot);
  }

  /* uPlot knows the mouse; a finger drags a stretch just so. */
  function fingers(target) {
    let from = null;
    const at = (event) => event.touches[0].clientX - target.over.getBoundingClientRect().left;
    target.over.addEventListener("touchstart", (event) => { if (event.touches.length === 1) from = at(event); }, { passive: true });
    target.over.addEventListener("touchmove", (event) => {
      if (from === null || event.touches.length !== 1) return;
      const to = at(event);
      target.setCursor({ left: to, top: target.over.clientHeight / 2 });
      target.setSelect({ left: Math.min(from, to), width: Math.abs(to - from), top: 0, height: target.over.clientHeight }, false);
    }, { passive: true });
    target.over.addEventListener("touchend", () => {
      const { left, width } = target.select;
      if (from !== null && width > 20) {
        target.setScale("x", { min: target.posToVal(left, "x"), max: target.posToVal(left + width, "x") });
      }
      target.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      from = null;
    });
  }

  for (const kind of ["what", "axis"]) {
    const buttons = document.querySelectorAll(`button[data-${kind}]`);
    buttons.forEach((button) => button.addEventListener("click", () => {
      chosen[kind] = button.dataset[kind];
      buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
      draw();
    }));
  }
  document.getElementById("whole").addEventListener("click", draw);
  dark.addEventListener("change", draw);
  new ResizeObserver(() => { if (plot && plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: plot.height }); }).observe(place);
  draw();
})();
