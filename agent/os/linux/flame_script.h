/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks and behaviour of a flame graph: what is the same in each. The script reads names as text
 * and writes text only, so a name cannot become anything else. Included by flame_svg.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_FLAME_SCRIPT_H
#define TRAWL_AGENT_OS_LINUX_FLAME_SCRIPT_H

#define FLAME_STYLE                                                                       \
    "<style>text{font:12px monospace;fill:#000}.title{font-size:17px;text-anchor:middle}" \
    ".subtitle{text-anchor:middle;fill:#555}.button{cursor:pointer;fill:#555}"            \
    ".right{text-anchor:end}#frames text{pointer-events:none}"                            \
    "#frames rect{stroke:#fffdf5;stroke-width:.4;cursor:pointer}"                         \
    "#frames rect:hover{stroke:#000;stroke-width:.8}.past{opacity:.5}</style>\n"

/* Zooming keeps what is over and under the frame that was clicked; "search" takes a pattern. */
#define FLAME_SCRIPT                                                                     \
    "<script><![CDATA[\n"                                                                \
    "(function(){\n"                                                                     \
    "'use strict';\n"                                                                    \
    "var W=1200,M=10,C=7,all=[],wanted=null,by=function(i){return "                      \
    "document.getElementById(i);};\n"                                                    \
    "function fit(f,w){var n=f.name,k=Math.floor((w-6)/C);\n"                            \
    "f.text.textContent=k<3?'':n.length<=k?n:n.slice(0,k-2)+'..';}\n"                    \
    "function place(f,x,w){f.g.style.display='';f.rect.setAttribute('x',x);\n"           \
    "f.rect.setAttribute('width',w);f.text.setAttribute('x',x+3);fit(f,w);}\n"           \
    "function zoom(t){all.forEach(function(f){\n"                                        \
    "if(!t){f.g.classList.remove('past');place(f,f.x,f.w);return;}\n"                    \
    "var k=(W-2*M)/t.w,e=.001,under=f.y>t.y&&f.x<=t.x+e&&f.x+f.w>=t.x+t.w-e;\n"          \
    "f.g.classList.toggle('past',under);\n"                                              \
    "if(under)place(f,M,W-2*M);\n"                                                       \
    "else if(f.y<=t.y&&f.x>=t.x-e&&f.x+f.w<=t.x+t.w+e)place(f,M+(f.x-t.x)*k,f.w*k);\n"   \
    "else f.g.style.display='none';});\n"                                                \
    "by('reset').textContent=t?'whole':'';}\n"                                           \
    "function mark(){var sum=0,end=-1;\n"                                                \
    "all.forEach(function(f){var hit=wanted&&wanted.test(f.name);\n"                     \
    "f.rect.setAttribute('fill',hit?'rgb(230,0,230)':f.fill);f.hit=hit;});\n"            \
    "all.filter(function(f){return f.hit;}).sort(function(a,b){return "                  \
    "a.x-b.x||b.w-a.w;})\n"                                                              \
    ".forEach(function(f){if(f.x>=end-.001){sum+=f.w;end=f.x+f.w;}});\n"                 \
    "by('found').textContent=wanted?'found: '+(100*sum/(W-2*M)).toFixed(1)+'%':'';\n"    \
    "by('search').textContent=wanted?'clear':'search';}\n"                               \
    "function search(){if(wanted){wanted=null;mark();return;}\n"                         \
    "var p=window.prompt('name, or part of it (regular expression)','');if(!p)return;\n" \
    "try{wanted=new RegExp(p);}catch(e){wanted={test:function(n){return "                \
    "n.indexOf(p)>=0;}};}\n"                                                             \
    "mark();}\n"                                                                         \
    "Array.prototype.forEach.call(by('frames').children,function(g){\n"                  \
    "var r=g.querySelector('rect'),t=g.querySelector('title').textContent,\n"            \
    "f={g:g,rect:r,text:g.querySelector('text'),x:+r.getAttribute('x'),\n"               \
    "y:+r.getAttribute('y'),w:+r.getAttribute('width'),fill:r.getAttribute('fill'),\n"   \
    "name:t.slice(0,t.lastIndexOf(' ('))};all.push(f);\n"                                \
    "r.addEventListener('click',function(){zoom(f);});\n"                                \
    "r.addEventListener('mouseover',function(){by('details').textContent=t;});\n"        \
    "r.addEventListener('mouseout',function(){by('details').textContent='';});});\n"     \
    "by('reset').addEventListener('click',function(){zoom(null);});\n"                   \
    "by('search').addEventListener('click',search);mark();\n"                            \
    "})();\n"                                                                            \
    "]]></script>\n"

#endif
