// Draws each figure when it comes into view, in the colours of the reader's scheme, and marks where the reader is.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");
  const touch = matchMedia("(hover: none)");
  const boxes = [...document.querySelectorAll(".plot")];
  const sources = new Map(); // of the figures that are drawn
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  let webgl;
  const hasWebgl = () => {
    if (webgl === undefined) {
      try { webgl = Boolean(document.createElement("canvas").getContext("webgl")); } catch { webgl = false; }
    }
    return webgl;
  };

  // The one blue of the palette is too dark for a dark page, and the grey is for a page of unknown colour.
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(",");
  const recoloured = (text) => text
    .replaceAll("#0072B2", colour("--blue")).replaceAll("rgba(0,114,178", `rgba(${rgb(colour("--blue"))}`)
    .replaceAll("#7A7A7A", colour("--grey"));

  const themed = ({ data, layout }) => {
    if (data.some((trace) => trace.type === "scattergl") && !hasWebgl()) {
      for (const trace of data) if (trace.type === "scattergl") trace.type = "scatter";
    }
    const size = narrow.matches ? 12 : 13;
    layout.autosize = true;
    layout.font = { color: colour("--quiet"), family: getComputedStyle(document.body).fontFamily, size };
    layout.hoverlabel = { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") }, align: "left" };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      layout[name].gridcolor = colour("--grid");
      layout[name].title = { ...layout[name].title, font: { size } };
      if (narrow.matches && name.startsWith("x") && !layout[name].dtick) layout[name].nticks = 5;
    }
    if (touch.matches) layout.dragmode = false; // a finger scrolls the page
    if (narrow.matches) layout.margin = { ...layout.margin, l: 44, r: 8 };
    return { data, layout };
  };

  const draw = (box) => {
    const script = box.querySelector("script");
    if (script) {
      sources.set(box, script.textContent);
      script.remove();
    }
    const { data, layout } = themed(JSON.parse(recoloured(sources.get(box))));
    Plotly.react(box, data, layout, { responsive: true, displaylogo: false, displayModeBar: touch.matches ? false : "hover" });
  };

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "400px" });
  for (const box of boxes) near.observe(box);
  addEventListener("beforeprint", () => boxes.filter((box) => !sources.has(box)).forEach(draw));
  dark.addEventListener("change", () => [...sources.keys()].forEach(draw));

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("section")];
  const inView = new Set();
  const reader = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) inView[isIntersecting ? "add" : "delete"](target);
    const current = sections.find((section) => inView.has(section));
    for (const [id, link] of links) {
      if (!current || id !== current.id) {
        link.removeAttribute("aria-current");
      } else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        link.closest("ol").scrollTo({ left: link.offsetLeft - 40 }); // on a phone the entries stand in a row
      }
    }
  }, { rootMargin: "-15% 0px -60% 0px" });
  for (const section of sections) reader.observe(section);
})();
