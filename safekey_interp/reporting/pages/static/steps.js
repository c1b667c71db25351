"use strict";
// Names the first column of each table of numbers after the plot's own axes: not every plot here runs over layers.
(() => {
  document.querySelectorAll(".panel").forEach((block) => {
    const box = block.querySelector(".numbers");
    new MutationObserver(() => {
      const corner = box.querySelector("thead th");
      if (!corner) return;
      const { xaxis, yaxis, meta } = block.querySelector(".plot").layout;
      corner.textContent = meta.table === "grid" ? `${yaxis.title.text} \\ ${xaxis.title.text}` : xaxis.title.text;
    }).observe(box, { childList: true });
  });
})();
