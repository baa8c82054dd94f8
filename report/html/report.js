// Draws each figure when it comes into view, in the colours of the scheme in use, and marks the section in view in the contents.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");
  const touch = matchMedia("(hover: none)");
  const PAPER = 680; // pixels of the text width of a printed A4 page
  const boxes = [...document.querySelectorAll(".plot")];
  const sources = new Map(); // figures that are drawn, with their JSON
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // --- packed data: gzip in base64, a third of its size ---------------------------------------------------------------

  const unpack = async (id) => {
    const packed = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(packed.length);
    for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  window.unpackReport = unpack;

  const fail = (reason) => {
    for (const box of boxes) {
      box.classList.add("failed");
      box.textContent = `This figure cannot be drawn: ${reason}`;
    }
  };

  const load = async () => {
    if (!window.DecompressionStream) throw new Error("it needs a browser of 2023 or later.");
    const script = document.createElement("script");
    script.textContent = await unpack("plotly");
    document.head.append(script);
  };

  // --- figures --------------------------------------------------------------------------------------------------------

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

  const themed = ({ data, layout }, width) => {
    if (width || !hasWebgl()) { // a canvas prints as a blur
      for (const trace of data) if (trace.type === "scattergl") trace.type = "scatter";
    }
    const size = narrow.matches ? 12 : 13;
    layout.autosize = true;
    if (width) Object.assign(layout, { width, height: Math.min(layout.height ?? 320, 560) });
    layout.font = { color: colour("--quiet"), family: getComputedStyle(document.body).fontFamily, size };
    layout.hoverlabel = { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") }, align: "left" };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      layout[name].gridcolor = colour("--grid");
      layout[name].title = { ...layout[name].title, font: { size } };
      if (narrow.matches && name.startsWith("x") && !layout[name].dtick && !layout[name].tickvals) layout[name].nticks = 5;
    }
    if (touch.matches) layout.dragmode = false; // a finger scrolls the page
    if (narrow.matches) layout.margin = { ...layout.margin, l: 44, r: layout.margin.r > 20 ? 64 : 8 };
    return { data, layout };
  };

  const draw = (box, width) => {
    const script = box.querySelector("script");
    if (script) {
      sources.set(box, script.textContent);
      script.remove();
    }
    const { data, layout } = themed(JSON.parse(recoloured(sources.get(box))), width);
    const buttons = touch.matches || width ? false : "hover";
    Plotly.react(box, data, layout, { responsive: !width, displaylogo: false, displayModeBar: buttons });
  };

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "400px" });

  // --- printing: every figure in the colours and the width of paper, everything folded is opened ----------------------

  let folded = [];
  const beforePrint = () => {
    if (root.classList.contains("printed")) return;
    root.classList.add("printed");
    folded = [...document.querySelectorAll("details:not([open]):not(.long)")];
    for (const one of folded) one.open = true;
    if (window.Plotly) for (const box of boxes) draw(box, box.closest(".pair") ? PAPER / 2 - 14 : PAPER);
  };
  const afterPrint = () => {
    root.classList.remove("printed");
    for (const one of folded) one.open = false;
    if (!window.Plotly) return;
    for (const box of boxes) Plotly.purge(box); // first all: a figure as wide as paper would stretch the columns of a phone
    for (const box of boxes) draw(box);
  };

  load().then(() => {
    for (const box of boxes) near.observe(box);
    addEventListener("beforeprint", beforePrint);
    addEventListener("afterprint", afterPrint);
    matchMedia("print").addEventListener("change", ({ matches }) => (matches ? beforePrint() : afterPrint()));
    dark.addEventListener("change", () => [...sources.keys()].forEach((box) => draw(box)));
    root.dataset.ready = "true";
  }).catch((error) => fail(error.message));

  // --- contents -------------------------------------------------------------------------------------------------------

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("section")];
  const inView = new Set();
  const reader = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) inView[isIntersecting ? "add" : "delete"](target);
    const current = sections.find((section) => inView.has(section));
    if (!current && scrollY < innerHeight) document.querySelector("nav ol")?.scrollTo({ left: 0 });
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
