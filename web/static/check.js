// Enhances the check page; without it the form posts and the server answers with a page.
const form = document.getElementById("check-form");
const file = document.getElementById("file");
const fileError = document.getElementById("file-error");
const preview = document.getElementById("preview");
const dropZone = document.getElementById("drop-zone");
const submit = form.querySelector("button[type=submit]");
const progressDialog = document.getElementById("progress-dialog");
const progressText = document.getElementById("progress-text");
const progress = document.getElementById("progress");
const resultDialog = document.getElementById("result-dialog");
const result = document.getElementById("result");
const announcement = document.getElementById("announcement");
const texts = form.dataset;

let upload = null;
let previewUrl = null;

document.querySelectorAll(".enhanced").forEach((element) => { element.hidden = false; });

function showFileError(text) {
  fileError.textContent = text;
  fileError.hidden = !text;
  file.setAttribute("aria-invalid", text ? "true" : "false");
}

function problemOf(picture) {
  // The server judges by content; this only spares a wasted upload.
  if (picture.type && !picture.type.startsWith("image/")) return texts.textType;
  if (picture.size > Number(texts.maxBytes)) return texts.textSize;
  return "";
}

function showPreview() {
  if (previewUrl) URL.revokeObjectURL(previewUrl);
  const picture = file.files[0];
  const problem = picture ? problemOf(picture) : "";
  showFileError(problem);
  previewUrl = picture && !problem ? URL.createObjectURL(picture) : null;
  preview.hidden = !previewUrl;
  if (previewUrl) preview.src = previewUrl;
}

// Browsers cannot draw every format that the server reads.
preview.addEventListener("error", () => { preview.hidden = true; });
file.addEventListener("change", showPreview);

for (const kind of ["dragenter", "dragover"]) {
  dropZone.addEventListener(kind, (event) => { event.preventDefault(); dropZone.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  dropZone.addEventListener(kind, () => dropZone.classList.remove("over"));
}
dropZone.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) {
    file.files = event.dataTransfer.files;
    showPreview();
  }
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length && !upload) {
    file.files = event.clipboardData.files;
    showPreview();
  }
});

function finish() {
  upload = null;
  submit.disabled = false;
  progressDialog.close();
}

function showResult(html) {
  result.innerHTML = html;
  resultDialog.showModal();
  const heading = document.getElementById("result-title");
  heading.tabIndex = -1;
  heading.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (upload) return;
  const problem = problemOf(file.files[0]);
  showFileError(problem);
  if (problem) { file.focus(); return; }

  announcement.textContent = "";
  submit.disabled = true;
  progress.value = 0;
  progressText.textContent = texts.textUploading;
  progressDialog.showModal();

  upload = new XMLHttpRequest();
  upload.open("POST", form.action);
  upload.setRequestHeader("X-Fragment", "1");
  upload.upload.addEventListener("progress", (step) => {
    if (step.lengthComputable) progress.value = (100 * step.loaded) / step.total;
  });
  upload.upload.addEventListener("load", () => {
    progress.removeAttribute("value");
    progressText.textContent = texts.textAnalysing;
  });
  upload.addEventListener("load", () => { const html = upload.responseText; finish(); showResult(html); });
  upload.addEventListener("error", () => { finish(); announcement.textContent = texts.textNetwork; submit.focus(); });
  upload.addEventListener("abort", () => { finish(); announcement.textContent = texts.textCancelled; submit.focus(); });
  upload.send(new FormData(form));
});

document.getElementById("cancel").addEventListener("click", () => upload?.abort());
progressDialog.addEventListener("cancel", (event) => { event.preventDefault(); upload?.abort(); });
document.getElementById("close").addEventListener("click", () => resultDialog.close());
document.getElementById("print").addEventListener("click", () => window.print());
resultDialog.addEventListener("close", () => { result.replaceChildren(); submit.focus(); });
