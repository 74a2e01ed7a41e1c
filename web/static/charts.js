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

async function draw(target) {
  const source = document.querySelector(`script[data-spec="${CSS.escape(target.dataset.chart)}"]`);
  const spec = JSON.parse(source.textContent);
  spec.config = { ...spec.config, ...config() };
  if (target.clientWidth < 420) {
    // On a phone names get less room, legends fewer columns, and the axis' title may use the room under them.
    const narrow = JSON.stringify(spec).replace(/"(minExtent|maxExtent)":\d+/g, '"$1":96').replace(/"labelLimit":\d+/g, '"labelLimit":90').replace(/"columns":\d+/g, '"columns":2');
    Object.assign(spec, JSON.parse(narrow));
    spec.config.axisX = { titleAnchor: "end" };
  }
  await window.vegaEmbed(target, spec, {
    ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true },
  });
  target.dataset.drawn = "yes";
}

const drawAll = () => Promise.all([...document.querySelectorAll("[data-chart]")].map(draw));
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
