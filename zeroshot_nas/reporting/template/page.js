"use strict";
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const colored = (value) => {
    if (typeof value === "string") return value.replace(/^var\((--[\w-]+)\)$/, (_, name) => color(name));
    if (Array.isArray(value)) return value.map(colored);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, colored(v)]));
    return value;
  };
  const settings = (narrow) => {
    const axis = { labelColor: color("--muted"), titleColor: color("--muted"), gridColor: color("--line"), domainColor: color("--line"), tickColor: color("--line"), labelFontSize: 11, titleFontSize: 12, titleFontWeight: 500, titlePadding: 8, labelLimit: narrow ? 104 : 240, tickCount: narrow ? 4 : 7 };
    return {
      background: null, font: getComputedStyle(document.body).fontFamily, view: { stroke: null }, axis,
      legend: { orient: "top", labelColor: color("--ink"), titleColor: color("--muted"), labelFontSize: 12, symbolSize: 80, columns: narrow ? 2 : 0, labelLimit: narrow ? 120 : 220, title: null, offset: 8 },
      point: { filled: true }, text: { color: color("--ink") },
    };
  };

  const drawn = new Map();
  const draw = (place) => {
    const spec = colored(JSON.parse(place.querySelector("script").textContent));
    const narrow = place.clientWidth < 520;
    let target = place.querySelector(".canvas");
    if (!target) {
      target = document.createElement("div");
      target.className = "canvas";
      place.append(target);
    }
    drawn.get(place)?.finalize();
    place.dataset.drawn = "";
    const options = { mode: "vega-lite", renderer: "svg", config: settings(narrow), actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: "chart", hover: true };
    window.vegaEmbed(target, { ...spec, description: place.dataset.alt }, options).then((found) => {
      drawn.set(place, found);
      place.dataset.drawn = "done";
    }, (error) => console.error(error));
  };
  const drawIn = (part) => part.querySelectorAll(".chart:not([data-drawn])").forEach(draw);
  const redraw = () => document.querySelectorAll(".chart[data-drawn]").forEach(draw);
  dark.addEventListener("change", redraw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if ((width < 620) !== (window.innerWidth < 620)) redraw();
    width = window.innerWidth;
  });

  const tabs = [...document.querySelectorAll("[role=tab]")];
  const parts = [...document.querySelectorAll(".part")];
  const name = (tab) => tab.textContent.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const show = (index, focus) => {
    tabs.forEach((tab, place) => {
      tab.setAttribute("aria-selected", String(place === index));
      tab.tabIndex = place === index ? 0 : -1;
    });
    parts.forEach((part, place) => { part.hidden = place !== index; });
    if (focus) tabs[index].focus();
    drawIn(parts[index]);
  };
  if (tabs.length) {
    document.body.classList.add("tabbed");
    const open = (index, focus) => {
      history.replaceState(null, "", "#" + name(tabs[index]));
      show(index, focus);
    };
    tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => open(index, false));
      tab.addEventListener("keydown", (event) => {
        const last = tabs.length - 1;
        const next = { ArrowRight: index === last ? 0 : index + 1, ArrowLeft: index ? index - 1 : last, Home: 0, End: last }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        open(next, true);
      });
    });
    const wanted = () => Math.max(0, tabs.findIndex((tab) => "#" + name(tab) === location.hash));
    window.addEventListener("hashchange", () => show(wanted(), false));
    show(wanted(), false);
  } else {
    parts.forEach(drawIn);
  }

  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", () => {
      const text = button.previousElementSibling.textContent;
      const done = () => {
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
    });
  });

  const seconds = Number(document.body.dataset.reload);
  if (seconds) {
    let held = false;  // somebody reads a value off a chart
    document.addEventListener("pointermove", (event) => { held = Boolean(event.target.closest?.(".chart, .diagram")); });
    document.addEventListener("pointerleave", () => { held = false; });
    setInterval(() => { if (!held && !document.hidden) location.reload(); }, 1000 * seconds);
  }
})();
