/* Draws the charts of the page one after another, as wide as there is room, and again when the room changes. */
(() => {
  "use strict";
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const narrowestPanel = 270; // pixels, without the names on the left
  const widestSingle = 720;
  const mostColumns = 3;
  const spacing = 26;
  const pixelsPerLetter = 6.3;

  /* Text and lines in the page's colours, which follow light, dark and paper. */
  const [ink, faint, line, font] = ["var(--ink)", "var(--faint)", "var(--line)", "system-ui, sans-serif"];
  const text = { labelColor: faint, titleColor: ink, labelFont: font, titleFont: font, titleFontWeight: "normal" };
  const config = {
    aria: false, // the page describes each chart; thousands of marks with a label each would be read one by one
    background: "transparent",
    font,
    view: { stroke: line },
    axis: { ...text, gridColor: line, gridOpacity: 0.6, domainColor: line, tickColor: line, titlePadding: 6 },
    axisY: { titleAlign: "left", titleAnchor: "start" },
    header: { ...text, labelFontSize: 12, labelFontWeight: "bold", labelColor: ink, labelAnchor: "start" },
    text: { color: ink, font },
    rule: { color: faint },
  };

  const rowsOf = (table) =>
    table.rows.map((row) => Object.fromEntries(table.columns.map((name, index) => [name, row[index]])));

  /* How many panels stand beside each other, and how wide each is. */
  const layout = (chart, panels, width) => {
    const gutter = Math.min(chart.labelLetters * pixelsPerLetter + 14, width * 0.36) + (chart.labelLetters ? 0 : 44);
    const perPanel = chart.ownAxes.includes("y") ? gutter : 0;
    const room = width - gutter - 8;
    const columns = Math.max(1, Math.min(mostColumns, panels, Math.floor(room / (narrowestPanel + perPanel))));
    const wide = (room - (columns - 1) * (spacing + perPanel)) / columns;
    return { columns, gutter, panel: Math.max(120, Math.min(widestSingle, Math.floor(wide))) };
  };

  const specification = (chart, panels, width) => {
    const { columns, gutter, panel } = layout(chart, panels.length, width);
    const axisX = { tickCount: Math.max(3, Math.round(panel / 80)), labelOverlap: true };
    const axisY = { ...config.axisY, labelLimit: gutter - 6 };
    const shown = new Set(panels);
    const rows = rowsOf(chart.table).filter((row) => shown.has(row[chart.panelField]));
    const whole = { config: { ...config, axisX, axisY }, datasets: { [chart.name]: rows }, data: { name: chart.name } };
    const inner = { ...chart.spec, width: panel };
    if (chart.panels.length === 1) return { ...whole, ...inner };
    const header = { title: null, labelLimit: panel };
    const facet = { field: chart.panelField, type: "nominal", sort: panels, header };
    const scale = Object.fromEntries(chart.ownAxes.map((channel) => [channel, "independent"]));
    return { ...whole, facet, columns, spacing, spec: inner, resolve: { scale } };
  };

  const draw = async (place) => {
    const chart = charts.find((each) => each.name === place.dataset.chart);
    const panels = chart.panels.slice(Number(place.dataset.from), Number(place.dataset.to));
    const options = { renderer: "svg", actions: false, ast: true, mode: "vega-lite", tooltip: { theme: "page" } };
    try {
      const previous = place.view;
      const result = await vegaEmbed(place, specification(chart, panels, place.clientWidth), options);
      if (previous) previous.finalize();
      place.view = result;
    } catch (error) {
      place.textContent = "This chart could not be drawn; its numbers stand in the table below.";
      console.error(`chart ${chart.name}:`, error);
    }
  };

  /* One at a time, with a pause in which the page can scroll and answer. Charts in closed parts wait until they open. */
  const drawAll = async (places) => {
    for (const place of places) {
      if (!place.closest("details:not([open])")) await draw(place);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  };

  const places = [...document.querySelectorAll("[data-chart]")];
  for (const part of document.querySelectorAll("details")) {
    part.addEventListener("toggle", () => {
      if (part.open) drawAll([...part.querySelectorAll("[data-chart]")].filter((place) => !place.view));
    });
  }

  /* Paper cannot be clicked: what is folded away for its length is opened, and drawn at once, before the page is laid
     out for it. Drawing one chart after another, with pauses, would come too late. */
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details.more:not([open])")) {
      part.open = true;
      part.querySelectorAll("[data-chart]").forEach((place) => place.view || draw(place));
    }
  });

  let width = 0;
  let waiting;
  const main = document.querySelector("main");
  new ResizeObserver(() => {
    if (Math.abs(main.clientWidth - width) < 8 || matchMedia("print").matches) return;
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      width = main.clientWidth;
      await drawAll(places);
      document.documentElement.dataset.drawn = "yes";
    }, width ? 200 : 0);
  }).observe(main);
})();
