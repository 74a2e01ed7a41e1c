// Draws the charts whose specifications stand in the page. Expressions are interpreted (ast), never compiled, so the
// page's policy can forbid eval.
const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue(name).trim();

function config() {
  const ink = colour("--ink-2");
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: "transparent",
    font,
    view: { stroke: null },
    axis: {
      labelColor: ink, titleColor: ink, gridColor: colour("--line"), domainColor: colour("--line"),
      tickColor: colour("--line"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
    },
    legend: { labelColor: ink, titleColor: ink, labelFontSize: 12 },
    text: { color: ink },
    title: { color: colour("--ink"), fontSize: 13, anchor: "start", frame: "group" },
  };
}

// A reader may want other colours for better and worse than the specification has: those of the page.
function repainted(key, value) {
  if (["color", "fill", "stroke"].includes(key) && value === "#e07b1f") return colour("--worse-2");
  if (!value?.range || !value.domain?.includes?.("worse")) return value;
  const now = { better: colour("--better-2"), worse: colour("--worse-2") };
  return { ...value, range: value.domain.map((code, i) => now[code] ?? value.range[i]) };
}

async function draw(target) {
  const source = document.querySelector(`script[data-spec="${CSS.escape(target.dataset.chart)}"]`);
  const spec = JSON.parse(source.textContent, document.documentElement.dataset.up ? repainted : undefined);
  spec.config = { ...spec.config, ...config() };
  if (target.clientWidth < 420) {
    // On a phone names get less room, legends fewer columns, and the axis' title may use the room under them.
    const narrow = JSON.stringify(spec).replace(/"(minExtent|maxExtent)":\d+/g, '"$1":96').replace(/"labelLimit":\d+/g, '"labelLimit":90').replace(/"columns":\d+/g, '"columns":2');
    Object.assign(spec, JSON.parse(narrow), spec.usermeta?.narrow);
    for (const part of (spec.layer ?? []).filter((layer) => layer.name === "names")) {
      part.encoding.x = { value: 0 };
      Object.assign(part.mark, { dx: 2, dy: -13 });
    }
    spec.config.axisX = { titleAnchor: "end" };
  }
  target.style.minHeight = `${target.clientHeight}px`;
  await window.vegaEmbed(target, spec, {
    ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true },
  });
  // The place of a chart has a name of its own; who hears the page need not hear every mark.
  target.querySelector("svg").setAttribute("aria-hidden", "true");
  target.style.minHeight = "";
  target.dataset.drawn = "yes";
}

// What is folded away has no width yet: it is drawn when it is opened.
const shown = () => [...document.querySelectorAll("[data-chart]")].filter((target) => !target.closest("details:not([open])"));
const drawAll = () => Promise.all(shown().map(draw));
drawAll();
document.addEventListener("toggle", (event) => {
  if (!event.target.open) return;
  shown().filter((target) => event.target.contains(target) && !target.dataset.drawn).forEach(draw);
}, true);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
