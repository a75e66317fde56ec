// Measures the page in the frame, and leaves what it found in an attribute of the outer document.
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow, width = view.innerWidth;
  const box = (element) => element.getBoundingClientRect();
  const named = (element) => `<${element.localName} class="${element.getAttribute("class") ?? ""}"> ` +
    element.textContent.trim().slice(0, 40);
  const all = [...page.body.querySelectorAll("*")].filter((element) => element.localName !== "script");
  const scrolls = (element) => element.closest(".scroll, pre");
  // Beyond the page's edge, but for what scrolls by itself.
  const beyond = all.filter((element) => !scrolls(element) && box(element).right > width + 1);
  // Text that its own element does not hold.
  const holds = (element) => element.scrollWidth <= element.clientWidth + 1 || element.clientWidth === 0;
  const plain = (element) => element.children.length === 0 && !element.closest("svg");
  const clipped = all.filter((element) => plain(element) && !scrolls(element) && !holds(element));
  // Letters of drawings, as large as they are shown, and those outside of their drawing.
  const letters = [...page.querySelectorAll("svg text")].map((text) => {
    const svg = text.ownerSVGElement, scale = box(svg).width / svg.viewBox.baseVal.width;
    return { text, size: parseFloat(view.getComputedStyle(text).fontSize) * scale };
  });
  const outside = letters.filter(({ text }) => {
    const inner = box(text), outer = box(text.ownerSVGElement);
    return inner.left < outer.left - 2 || inner.right > outer.right + 2 ||
      inner.top < outer.top - 2 || inner.bottom > outer.bottom + 2;
  });
  // Names at the ends of curves that touch each other.
  const touching = [];
  for (const svg of page.querySelectorAll("svg")) {
    const names = [...svg.querySelectorAll("text.name:not([transform])")].map((text) => [text, box(text)]);
    names.forEach(([a, first], i) => names.slice(i + 1).forEach(([b, second]) => {
      const apart = first.right <= second.left || second.right <= first.left ||
        first.bottom <= second.top + 3 || second.bottom <= first.top + 3;
      if (!apart) touching.push(`${a.textContent} / ${b.textContent}`);
    }));
  }
  // Tables whose rows lose their names when they are scrolled to the side.
  const nameless = [...page.querySelectorAll(".scroll table:not(.confusion)")].filter((table) => {
    const name = table.tBodies[0]?.rows[0]?.cells[0];
    const wide = table.scrollWidth > table.parentElement.clientWidth + 1;
    return wide && name && view.getComputedStyle(name).position !== "sticky";
  });
  // Galleries with room at their right that no row takes.
  const unfilled = [...page.querySelectorAll(".gallery")].filter((gallery) => {
    const figures = [...gallery.children], columns = view.getComputedStyle(gallery).gridTemplateColumns.split(" ");
    const right = Math.max(...figures.map((figure) => box(figure).right));
    return figures.length >= columns.length && right < box(gallery).right - 2;
  });
  const images = [...page.querySelectorAll("img")];
  const measured = {
    width,
    document: page.documentElement.scrollWidth,
    height: page.documentElement.scrollHeight,
    sections: [...page.querySelectorAll("section")].map((section) => section.id),
    charts: page.querySelectorAll("svg[role=img]").length,
    beyond: beyond.map(named),
    clipped: clipped.map(named),
    smallest: Math.min(...letters.map(({ size }) => size)),
    outside: outside.map(({ text }) => named(text)),
    touching,
    nameless: nameless.map(named),
    unfilled: unfilled.map(named),
    images: images.length,
    broken: images.filter((image) => !image.complete || image.naturalWidth === 0).length,
    loaded: view.performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 100))
      .filter((name) => !name.startsWith("data:")),
  };
  document.documentElement.setAttribute("data-measured", encodeURIComponent(JSON.stringify(measured)));
});
