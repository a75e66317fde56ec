// A click on a heading sorts the table by that column, a second one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    if (!headings[column].classList.contains("num")) return text.toLowerCase();
    const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
    return Number.isNaN(number) ? null : number;
  };
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    // Numbers start with the largest, names with the first.
    const numbers = heading.classList.contains("num");
    const now = heading.getAttribute("aria-sort");
    const descending = now ? now === "ascending" : numbers;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => {
      // Absent values come last either way.
      if (a === null || b === null) return (a === null) - (b === null);
      const order = a < b ? -1 : a > b ? 1 : 0;
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}
// A click on an image shows it across the page, a second one small again.
for (const image of document.querySelectorAll(".gallery img")) {
  image.addEventListener("click", () => image.closest("figure").classList.toggle("large"));
}
