// The ledger's filter, and a claim that a link names is opened. Without this the page shows all of it.
"use strict";
(() => {
  const claims = [...document.querySelectorAll("tbody.claim")];
  const form = document.querySelector("form.filter");
  const apply = () => {
    const {verdict, study} = form.elements;
    const shown = claims.filter(({dataset}) =>
      (!verdict.value || dataset.verdict === verdict.value) && (!study.value || dataset.study === study.value));
    for (const claim of claims) claim.hidden = !shown.includes(claim);
    form.querySelector("output").value = `${shown.length} of ${claims.length} claims`;
  };
  if (form) {
    form.hidden = false;
    form.addEventListener("change", apply);
    for (const count of document.querySelectorAll(".counts a")) {
      count.addEventListener("click", () => { form.reset(); form.elements.verdict.value = count.dataset.verdict; apply(); });
    }
    apply();
  }
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.hidden) { form.reset(); apply(); }
    const details = target.matches("details") ? target : target.matches(".claim") && target.querySelector("details");
    if (details) details.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
