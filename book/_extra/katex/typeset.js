// Typeset the formulas of a page with KaTeX.
for (const element of document.querySelectorAll(".math, .amsmath")) {
  const tex = element.textContent.trim().replace(/^\\[([]|\\[)\]]$/g, "");
  katex.render(tex, element, { displayMode: element.tagName === "DIV", throwOnError: false });
}
