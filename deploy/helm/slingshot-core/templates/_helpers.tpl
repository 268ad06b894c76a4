{{- define "slingshot.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "slingshot.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: core
{{- end }}

{{- define "slingshot.labels" -}}
{{ include "slingshot.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "slingshot.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "slingshot.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* As core-server itself does, but before anything is installed. */ -}}
{{- define "slingshot.checkAccess" -}}
{{- with .Values.access }}
{{- if and (not .tlsSecret) (or .keysSecret .clientCaSecret) }}
{{- fail "keys and certificates of agents require TLS: set access.tlsSecret" }}
{{- end }}
{{- if and .open (or .keysSecret .clientCaSecret) }}
{{- fail "access.open=true serves everybody: remove it, or remove access.keysSecret and access.clientCaSecret" }}
{{- end }}
{{- if and (not .open) (not (and .tlsSecret (or .keysSecret .clientCaSecret))) }}
{{- fail "set who may connect: access.tlsSecret with access.keysSecret or access.clientCaSecret; or access.open=true for everybody" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "slingshot.checkUpstream" -}}
{{- with .Values.upstream }}
{{- if or .url .model .tokenizer .keySecret }}
{{- if not (and .url .model .tokenizer) }}
{{- fail "an upstream needs upstream.url, upstream.model and upstream.tokenizer" }}
{{- end }}
{{- if and .keySecret (not (hasPrefix "https://" .url)) }}
{{- fail "the upstream's API key would cross the network unencrypted: use an https upstream.url" }}
{{- end }}
{{- if gt (mul $.Values.core.tensorParallel $.Values.core.engines) 1 }}
{{- fail "with an upstream nothing is computed here: leave core.tensorParallel and core.engines at 1" }}
{{- end }}
{{- if and $.Values.networkPolicy.enabled (not $.Values.networkPolicy.egress) }}
{{- fail "the network policy keeps the pods from their upstream: allow it in networkPolicy.egress, with DNS" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "slingshot.gpus" -}}
{{- if .Values.upstream.url }}0{{ else if hasPrefix "cuda" .Values.core.device }}{{ mul .Values.core.tensorParallel .Values.core.engines }}{{ else }}0{{ end }}
{{- end }}
